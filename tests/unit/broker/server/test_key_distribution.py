"""Who is told of the signing keys again, and how often, by a server that hears statuses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.app.factories import open_database
from broker.contract.codec import encode_status
from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS
from broker.contract.messages import Status
from broker.contract.topics import Topics
from broker.enrolment.store import EnrolmentStore
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.server.key_distribution import KeyDistribution
from broker.server.server import Server
from broker.signing.key_store import SigningKeyStore
from tests.support.enrolled import Registrar, now
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import inbound_on
from tests.unit.broker.server.test_server import RememberingWire

STATUS = Status("web-01", True, "1", "i1", "b1", "g1", supported_types=(UPDATE_SIGNING_KEYS,))


class Office:
    """A server with an enrolled agent, web-01, that knows the first list, and a second list of which it was not told.

    Enrolments go by the machine's clock, commands by one that the test turns.
    """

    def __init__(self, directory: Path) -> None:
        registrar = Registrar(directory / "ca", f"sqlite:///{directory}/ledger.db")
        registrar.enroll("web-01", directory / "web-01", "mqtt://127.0.0.1")
        self.clock = TurnedClock()
        self.ledger = Ledger(open_database(registrar.ledger), now=self.clock.now)
        self.enrolments = EnrolmentStore(self.ledger.database, now=now)
        self.keys = SigningKeyStore(directory / "ca" / "signing")
        self.first = self.keys.version
        self.keys.rotate(now())
        self.start(directory / "ca" / "signing")

    def start(self, keys: Path) -> None:
        distribution = KeyDistribution(self.ledger, self.enrolments, keys, self.clock.now)
        self.server = Server(self.ledger, RememberingWire(), Topics(), on_status=distribution.on_status)

    def hears(self, status: Status) -> None:
        topic = f"acm/{status.agent}/status"
        self.server.receive([inbound_on(topic, encode_status(status))])

    def told(self) -> list[int]:
        """The versions of all commands so far, the newest first."""
        return [row.command.parameters["version"] for row in self.ledger.commands()]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.ledger.database.close()


def test_an_agent_that_is_behind_is_told_once(office: Office, tmp_path: Path) -> None:
    behind = replace(STATUS, signing_keys_version=office.first)
    office.hears(behind)
    (row,) = office.ledger.commands()
    assert row.command.parameters == {"version": office.keys.version, "keys": list(office.keys.public)}
    office.clock.turn(3600)
    office.hears(behind)
    office.start(tmp_path / "ca" / "signing")
    office.hears(behind)
    assert office.told() == [office.keys.version], "it is open still, and a server that starts anew sees that"


def test_an_agent_that_lost_what_told_it_is_told_again_after_a_while(office: Office, tmp_path: Path) -> None:
    behind = replace(STATUS, signing_keys_version=office.first)
    office.hears(behind)
    office.server.step()
    for generation in ("g2", "g3"):
        office.start(tmp_path / "ca" / "signing")
        office.hears(replace(behind, incarnation="i2", store_generation=generation))
    (row,) = office.ledger.commands()
    assert row.state is CommandState.COMPLETED, "interrupted, and an agent that says so at each moment fills no ledger"
    office.clock.turn(600)
    office.hears(replace(behind, store_generation="g3"))
    assert office.told() == [office.keys.version] * 2


def test_a_further_list_is_told_at_once(office: Office) -> None:
    behind = replace(STATUS, signing_keys_version=office.first)
    office.hears(behind)
    before = office.keys.version
    office.keys.rotate(now())
    office.hears(behind)
    assert office.told() == [office.keys.version, before]


@pytest.mark.parametrize(
    "status",
    [
        replace(STATUS, signing_keys_version=2**53 - 1),
        STATUS,
        replace(STATUS, signing_keys_version=1, online=False),
        replace(STATUS, signing_keys_version=1, supported_types=("restart-agent",)),
        replace(STATUS, signing_keys_version=1, agent="stranger"),
    ],
    ids=["another list", "no list", "a last will", "an agent that knows no such command", "not enrolled"],
)
def test_nobody_else_is_told(office: Office, status: Status) -> None:
    office.hears(status)
    assert office.told() == []


def test_a_server_without_keys_tells_nobody(office: Office, tmp_path: Path) -> None:
    office.start(tmp_path / "nowhere")
    office.hears(replace(STATUS, signing_keys_version=1))
    assert office.told() == []
