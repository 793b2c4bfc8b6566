"""The sessions of revoked agents end on a real Mosquitto, and do not come back, without a restart of it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.app.factories import utc_now
from broker.contract.private_keys import private_key_from_pem, private_key_to_pem
from broker.enrolment.mqtt_takeover import TakeoverError, TakeoverRefused, take_over
from broker.enrolment.session_revocation import SessionRevoker
from broker.mosquitto.process import SecuredMosquitto
from broker.mqtt.address import TlsFiles, parse_url
from broker.mqtt.connection import MqttConnection
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevocationReason
from tests.support.enrolling import EnrolmentBackend
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.secured import SecuredSite
from tests.support.waiting import wait_for

# paho leaves the socket of a failed handshake to the collector, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Place:
    """A running broker, its enrolments, and the evictor on a clock that the test turns."""

    def __init__(self, site: SecuredSite, mosquitto: SecuredMosquitto, clock: TurnedClock) -> None:
        self.site = site
        self.mosquitto = mosquitto
        self.clock = clock
        self.backend = EnrolmentBackend(site.authority, site.config.ledger, utc_now)
        self.list = RevocationFile(site.files.revocation_list, site.authority, self.backend.enrolments, now=utc_now)
        self.evictor = SessionRevoker(
            site.authority,
            self.backend.sessions,
            self.list,
            parse_url(site.url),
            now=utc_now,
            monotonic=clock.monotonic,
        )

    def enroll(self, agent: str) -> TlsFiles:
        """Return the files of a new enrolment."""
        key = Ed25519PrivateKey.generate()
        grant = self.backend.enroll(agent, key)
        stem = self.site.directory.parent / grant.enrolment_id
        stem.with_suffix(".crt").write_text(grant.certificate)
        stem.with_suffix(".key").write_bytes(private_key_to_pem(key))
        return TlsFiles(self.site.server.ca, stem.with_suffix(".crt"), stem.with_suffix(".key"))

    def connection(self, agent: str, files: TlsFiles, topic: str = "command") -> MqttConnection:
        return MqttConnection(
            self.site.url,
            agent,
            tls=files,
            subscriptions=[f"acm/{agent}/{topic}"],
            will=(f"acm/{agent}/status", b"offline"),
        )

    def revoke(self, target: str) -> None:
        self.backend.enrolments.revoke(target, RevocationReason.KEY_COMPROMISE)
        self.list.write()

    def refuses(self, agent: str, files: TlsFiles) -> bool:
        """Return whether the broker turns away the holder of these."""
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = private_key_from_pem(files.key.read_bytes())
        try:
            take_over(parse_url(self.site.url), files.ca.read_text(), certificate, key, agent)
        except TakeoverRefused:
            return True
        return False

    def step(self) -> None:
        """Let the evictor do what is due, and its longest wait go by."""
        self.evictor.step()
        self.clock.turn(301)

    def let_it_reload(self, revoked: TlsFiles) -> None:
        """Let the broker reload, and wait until it refuses the holder of these."""
        assert self.mosquitto.reload_when_changed()
        wait_for(lambda: self.refuses("witness", revoked), "the broker to reload")

    def let_sessions_end(self) -> None:
        """Let the broker reload, and the evictor work until it is done: the broker reloads when it gets to it."""
        assert self.mosquitto.reload_when_changed()
        wait_for(lambda: self.step() or not self.backend.sessions.to_end(), "the sessions to end", 10)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    site = SecuredSite(tmp_path)
    with SecuredMosquitto(site.directory) as mosquitto:
        place = Place(site, mosquitto, TurnedClock())
        with place.backend.database:
            yield place


def test_the_session_of_a_revoked_agent_ends_for_good(place: Place) -> None:
    files, witness = place.enroll("web-01"), place.enroll("witness")
    with (
        MqttConnection(place.site.url, "acm-server", tls=place.site.server, subscriptions=["acm/+/status"]) as server,
        place.connection("web-01", files) as revoked,
        place.connection("web-02", place.enroll("web-02")) as other,
    ):
        assert server.wait_connected(10)
        assert revoked.wait_connected(10)
        assert other.wait_connected(10)
        place.revoke("witness")
        place.revoke("web-01")
        place.step()
        place.let_it_reload(witness)
        assert revoked.connected
        place.step()
        assert place.backend.sessions.to_end() == []
        assert [delivery.payload for delivery in server.drain(10)] == [b"offline"]
        wait_for(lambda: not revoked.connected, "the agent to notice")
        assert place.refuses("web-01", files)
        assert (other.connections, other.connected) == (1, True)


def test_no_session_is_called_ended_before_the_broker_refuses_the_certificate(place: Place) -> None:
    files = place.enroll("web-01")
    with place.connection("web-01", files) as revoked:
        assert revoked.wait_connected(10)
        place.revoke("web-01")
        place.step()
        place.step()  # the broker was not told to reload
        assert (revoked.connections, revoked.connected) == (1, True)
        assert len(place.backend.sessions.to_end()) == 1
        place.let_sessions_end()
        wait_for(lambda: not revoked.connected, "the agent to notice")
        assert place.refuses("web-01", files)


def test_what_waits_for_a_revoked_agent_is_dropped(place: Place) -> None:
    files = place.enroll("web-01")
    with MqttConnection(place.site.url, "acm-server", tls=place.site.server, subscriptions=["acm/+/ack"]) as server:
        with place.connection("web-01", files) as revoked:
            assert revoked.wait_connected(10)
        assert server.wait_connected(10)
        server.publish("acm/web-01/command", b"kept for the agent")
        wait_for(lambda: server.backlog == 0, "the broker to have it")
        place.revoke("web-01")
        place.step()
        place.let_sessions_end()
        with place.connection("web-01", place.enroll("web-01"), topic="ack") as anew:
            assert anew.wait_connected(10)
            server.publish("acm/web-01/ack", b"first")
            assert [delivery.payload for delivery in anew.drain(10)] == [b"first"]


def test_an_agent_that_enrolled_anew_comes_back(place: Place) -> None:
    place.enroll("web-01")
    place.revoke("web-01")
    with place.connection("web-01", place.enroll("web-01")) as anew:
        assert anew.wait_connected(10)
        place.step()
        place.let_sessions_end()
        wait_for(lambda: anew.connections > 1 and anew.connected, "the agent to come back")


def test_a_broker_of_another_authority_is_not_believed(place: Place, tmp_path: Path) -> None:
    stranger = SecuredSite(tmp_path / "other")
    key = Ed25519PrivateKey.generate()
    certificate = stranger.authority.issue("web-01", key.public_key(), timedelta(days=1))
    address = parse_url(place.site.url)
    with raises_code(TakeoverError, "tls_handshake_failed") as caught:
        take_over(address, stranger.authority.certificate, certificate, key, "web-01")
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)
