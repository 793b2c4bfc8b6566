"""When the evictor ends sessions, and whose: by a broker that loads its list when the test says so."""

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
    """Takes any certificate but those on the list that it has loaded; the sessions of `stuck` cannot be ended."""

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


class Place:
    """A broker, its enrolments, and any number of enrolment servers."""

    def __init__(self, directory: Path, clock: TurnedClock) -> None:
        self.clock = clock
        self.path = directory / "crl.pem"
        self.broker = Broker(self.path)
        self.backend = EnrolmentBackend.create(directory, clock.now)
        self.authority, self.enrolments = self.backend.authority, self.backend.enrolments
        self.enroll = self.backend.enroll

    def evictor(self) -> SessionRevoker:
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
            self.enrolments.revoke(agent, RevocationReason.SUPERSEDED)

    def waiting(self) -> list[str]:
        return [row.agent for row in self.backend.sessions.to_end()]


@pytest.fixture
def place(tmp_path: Path, clock: TurnedClock) -> Iterator[Place]:
    place = Place(tmp_path, clock)
    with place.backend.database:
        yield place


def test_no_agent_can_have_the_canarys_name() -> None:
    with pytest.raises(InvalidName):
        check_agent_name(CANARY)


def test_a_list_that_is_never_loaded_ends_nobodys_session(place: Place) -> None:
    place.revoke("web-01")
    place.enroll("web-01")
    evictor = place.evictor()
    for _ in range(2 * DAY_S // 300):
        evictor.step()
        place.clock.turn(300)
    assert place.broker.agents_ended == []
    assert len(place.broker.ended) > 100
    place.broker.load()
    evictor.step()
    assert (place.broker.agents_ended, place.waiting()) == (["web-01"], [])


def test_two_servers_at_once_come_to_an_end(place: Place) -> None:
    place.revoke("web-01", "web-02")
    first, second = place.evictor(), place.evictor()
    for evictor in (first, second, first, second):
        evictor.step()
        place.clock.turn(301)
    place.broker.load()
    first.step()
    second.step()
    assert place.waiting() == []
    assert sorted(place.broker.agents_ended) == ["web-01", "web-02"]


def test_one_session_that_cannot_be_ended_holds_up_no_other_and_repeats_none(place: Place) -> None:
    place.revoke("web-01", "web-02", "web-03")
    place.broker.stuck.add("web-02")
    evictor = place.evictor()
    evictor.step()
    place.broker.load()
    for _ in range(5):
        evictor.step()
        place.clock.turn(301)
    assert place.waiting() == ["web-02"]
    assert sorted(place.broker.agents_ended) == ["web-01", "web-03"]
    place.broker.stuck.clear()
    evictor.step()
    assert place.waiting() == []


def test_it_can_fail_for_ever(place: Place) -> None:
    place.revoke("web-01")
    place.broker.stuck.add(CANARY)
    evictor = place.evictor()
    for _ in range(1100):  # two to that power is more than a float can hold
        evictor.step()
        place.clock.turn(301)
    assert place.waiting() == ["web-01"]


def test_a_list_that_somebody_has_replaced_gets_the_canary_again(place: Place) -> None:
    place.revoke("web-01")
    evictor = place.evictor()
    evictor.step()
    place.path.unlink()
    evictor.step()
    place.broker.load()
    place.clock.turn(301)
    evictor.step()
    assert place.waiting() == []
