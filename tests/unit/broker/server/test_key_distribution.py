"""Which agents are sent the signing keys again after a status, and how often."""

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


class DistributingServer:
    """A server with an enrolled agent, web-01, that has the first list of keys, and a second list that it was not sent.

    Enrolments use the machine's clock, commands one that the test turns.
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

    def receive(self, status: Status) -> None:
        topic = f"acm/{status.agent}/status"
        self.server.receive([inbound_on(topic, encode_status(status))])

    def sent_versions(self) -> list[int]:
        """The versions in all commands so far, newest first."""
        return [row.command.parameters["version"] for row in self.ledger.commands()]


@pytest.fixture
def distributing(tmp_path: Path) -> Iterator[DistributingServer]:
    distributing = DistributingServer(tmp_path)
    yield distributing
    distributing.ledger.database.close()


def test_agent_with_an_older_list_is_sent_the_new_one_once(distributing: DistributingServer, tmp_path: Path) -> None:
    behind = replace(STATUS, signing_keys_version=distributing.first)
    distributing.receive(behind)
    (row,) = distributing.ledger.commands()
    assert row.command.parameters == {"version": distributing.keys.version, "keys": list(distributing.keys.update.keys)}
    distributing.clock.turn(3600)
    distributing.receive(behind)
    distributing.start(tmp_path / "ca" / "signing")
    distributing.receive(behind)
    assert distributing.sent_versions() == [distributing.keys.version], (
        "it is still open, and a restarted server sees that"
    )


@pytest.mark.parametrize("turned", [600, -86_400])
def test_agent_that_lost_the_list_is_sent_it_again_after_ten_minutes(
    distributing: DistributingServer, tmp_path: Path, turned: int
) -> None:
    """Or at once after the server's clock was set back, when it is unknown how long ago the list was sent."""
    behind = replace(STATUS, signing_keys_version=distributing.first)
    distributing.receive(behind)
    distributing.server.step()
    for generation in ("g2", "g3"):
        distributing.start(tmp_path / "ca" / "signing")
        distributing.receive(replace(behind, incarnation="i2", store_generation=generation))
    (row,) = distributing.ledger.commands()
    assert row.state is CommandState.COMPLETED, (
        "interrupted, and an agent that reports it all the time does not fill the ledger"
    )
    distributing.clock.turn(turned)
    distributing.receive(replace(behind, store_generation="g3"))
    assert distributing.sent_versions() == [distributing.keys.version] * 2


def test_newer_list_is_sent_immediately(distributing: DistributingServer) -> None:
    behind = replace(STATUS, signing_keys_version=distributing.first)
    distributing.receive(behind)
    before = distributing.keys.version
    distributing.keys.rotate(now())
    distributing.receive(behind)
    assert distributing.sent_versions() == [distributing.keys.version, before]


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
def test_list_is_not_sent_to_other_agents(distributing: DistributingServer, status: Status) -> None:
    distributing.receive(status)
    assert distributing.sent_versions() == []


def test_server_without_keys_sends_no_list(distributing: DistributingServer, tmp_path: Path) -> None:
    distributing.start(tmp_path / "nowhere")
    distributing.receive(replace(STATUS, signing_keys_version=1))
    assert distributing.sent_versions() == []
