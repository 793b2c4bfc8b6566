"""The end of revoked agents' sessions, with a broker that loads its list when the test calls `load`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from broker.contract.topics import InvalidName, check_agent_name
from broker.enrolment.mqtt_takeover import TakeoverError, TakeoverRefused
from broker.enrolment.session_revocation import SessionRevoker
from broker.mqtt.address import BrokerAddress, parse_url
from broker.pki.certificates import CANARY
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason
from tests.support.enrolling import EnrolmentBackend
from tests.support.fakes.clock import TurnedClock

DAY_S = 86400


class Broker:
    """Accepts any certificate that is not on the list that it has loaded; the sessions of `stuck` cannot be ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stuck: set[str] = set()
        self.loaded: set[int] = set()
        self.ended: list[str] = []

    def load(self) -> None:
        self.loaded = {entry.serial_number for entry in x509.load_pem_x509_crl(self.path.read_bytes())}

    def take_over(
        self, address: BrokerAddress, ca: str, certificate: x509.Certificate, key: Ed25519PrivateKey, client_id: str
    ) -> None:
        # The name in the certificate is the client id, as on Mosquitto.
        name = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        assert name == client_id
        if certificate.serial_number in self.loaded:
            raise TakeoverRefused("revoked")
        if name in self.stuck:
            raise TakeoverError(f"{name} stays")
        self.ended.append(name)

    @property
    def agents_ended(self) -> list[str]:
        return [name for name in self.ended if name != CANARY]


class RevocationSetup:
    """A broker, its enrolments, and any number of enrolment servers."""

    def __init__(self, directory: Path, clock: TurnedClock) -> None:
        self.clock = clock
        self.path = directory / "crl.pem"
        self.broker = Broker(self.path)
        self.backend = EnrolmentBackend.create(directory, clock.now)
        self.authority, self.enrolments = self.backend.authority, self.backend.enrolments
        self.enroll = self.backend.enroll

    def revoker(self) -> SessionRevoker:
        file = RevocationFile(self.path, self.authority, self.enrolments, now=self.clock.now)
        return SessionRevoker(
            self.authority,
            self.backend.sessions,
            file,
            parse_url("mqtts://broker"),
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            take_over=self.broker.take_over,
        )

    def revoke(self, *agents: str) -> None:
        for agent in agents:
            self.enroll(agent)
            self.enrolments.revoke_agent(agent, RevocationReason.SUPERSEDED)

    def waiting(self) -> list[str]:
        return [row.agent for row in self.backend.sessions.to_end()]


@pytest.fixture
def setup(tmp_path: Path, clock: TurnedClock) -> Iterator[RevocationSetup]:
    setup = RevocationSetup(tmp_path, clock)
    with setup.backend.database:
        yield setup


def test_canary_name_is_not_a_valid_agent_name() -> None:
    with pytest.raises(InvalidName):
        check_agent_name(CANARY)


def test_no_session_is_ended_before_the_broker_loads_the_crl(setup: RevocationSetup) -> None:
    setup.revoke("web-01")
    setup.enroll("web-01")
    revoker = setup.revoker()
    for _ in range(2 * DAY_S // 300):
        revoker.step()
        setup.clock.turn(300)
    assert setup.broker.agents_ended == []
    assert len(setup.broker.ended) > 100
    setup.broker.load()
    revoker.step()
    assert (setup.broker.agents_ended, setup.waiting()) == (["web-01"], [])


def test_two_servers_end_each_session_once(setup: RevocationSetup) -> None:
    setup.revoke("web-01", "web-02")
    first, second = setup.revoker(), setup.revoker()
    for revoker in (first, second, first, second):
        revoker.step()
        setup.clock.turn(301)
    setup.broker.load()
    first.step()
    second.step()
    assert setup.waiting() == []
    assert sorted(setup.broker.agents_ended) == ["web-01", "web-02"]


def test_session_that_cannot_be_ended_delays_and_repeats_no_other(setup: RevocationSetup) -> None:
    setup.revoke("web-01", "web-02", "web-03")
    setup.broker.stuck.add("web-02")
    revoker = setup.revoker()
    revoker.step()
    setup.broker.load()
    for _ in range(5):
        revoker.step()
        setup.clock.turn(301)
    assert setup.waiting() == ["web-02"]
    assert sorted(setup.broker.agents_ended) == ["web-01", "web-03"]
    setup.broker.stuck.clear()
    revoker.step()
    assert setup.waiting() == []


def test_endless_failures_are_retried_without_overflow(setup: RevocationSetup) -> None:
    setup.revoke("web-01")
    setup.broker.stuck.add(CANARY)
    revoker = setup.revoker()
    for _ in range(1100):  # two to that power exceeds a float
        revoker.step()
        setup.clock.turn(301)
    assert setup.waiting() == ["web-01"]


def test_canary_is_added_again_to_a_replaced_crl(setup: RevocationSetup) -> None:
    setup.revoke("web-01")
    revoker = setup.revoker()
    revoker.step()
    setup.path.unlink()
    revoker.step()
    setup.broker.load()
    setup.clock.turn(301)
    revoker.step()
    assert setup.waiting() == []
