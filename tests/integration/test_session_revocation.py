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


class BrokerSetup:
    """A running broker, its enrolments, and the revoker on a clock that the test turns."""

    def __init__(self, site: SecuredSite, mosquitto: SecuredMosquitto, clock: TurnedClock) -> None:
        self.site = site
        self.mosquitto = mosquitto
        self.clock = clock
        self.backend = EnrolmentBackend(site.authority, site.config.ledger, utc_now)
        self.list = RevocationFile(site.files.revocation_list, site.authority, self.backend.enrolments, now=utc_now)
        self.revoker = SessionRevoker(
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
            will=(f"acm/{agent}/status", lambda: b"offline"),
        )

    def revoke(self, target: str) -> None:
        self.backend.enrolments.revoke_agent(target, RevocationReason.KEY_COMPROMISE)
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
        """Let the revoker work, then turn the clock past its longest wait."""
        self.revoker.step()
        self.clock.turn(301)

    def let_it_reload(self, revoked: TlsFiles) -> None:
        """Let the broker reload, and wait until it refuses the holder of these."""
        assert self.mosquitto.reload_when_changed()
        wait_for(lambda: self.refuses("witness", revoked), "the broker to reload")

    def let_sessions_end(self) -> None:
        """Let the broker reload, and the revoker work until it is done: the broker reloads when it gets to it."""
        assert self.mosquitto.reload_when_changed()
        wait_for(lambda: self.step() or not self.backend.sessions.to_end(), "the sessions to end", 10)


@pytest.fixture
def setup(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BrokerSetup]:
    """Run the broker; a parameter is the oldest version of TLS that it takes."""
    site = SecuredSite(tmp_path)
    configuration = site.directory / "mosquitto.conf"
    oldest = getattr(request, "param", "tlsv1.2")
    configuration.write_text(configuration.read_text().replace("tls_version tlsv1.2", f"tls_version {oldest}"))
    with SecuredMosquitto(site.directory) as mosquitto:
        setup = BrokerSetup(site, mosquitto, TurnedClock())
        with setup.backend.database:
            yield setup


@pytest.mark.parametrize("setup", ["tlsv1.2", "tlsv1.3"], indirect=True)
def test_session_of_a_revoked_agent_ends_for_good(setup: BrokerSetup) -> None:
    files, witness = setup.enroll("web-01"), setup.enroll("witness")
    with (
        MqttConnection(setup.site.url, "acm-server", tls=setup.site.server, subscriptions=["acm/+/status"]) as server,
        setup.connection("web-01", files) as revoked,
        setup.connection("web-02", setup.enroll("web-02")) as other,
    ):
        assert server.wait_connected(10)
        assert revoked.wait_connected(10)
        assert other.wait_connected(10)
        setup.revoke("witness")
        setup.revoke("web-01")
        setup.step()
        setup.let_it_reload(witness)
        assert revoked.connected
        setup.step()
        assert setup.backend.sessions.to_end() == []
        assert [delivery.payload for delivery in server.drain(10)] == [b"offline"]
        wait_for(lambda: not revoked.connected, "the agent to notice")
        assert setup.refuses("web-01", files)
        assert (other.connections, other.connected) == (1, True)


def test_session_end_is_recorded_only_after_the_broker_loaded_the_crl(setup: BrokerSetup) -> None:
    files = setup.enroll("web-01")
    with setup.connection("web-01", files) as revoked:
        assert revoked.wait_connected(10)
        setup.revoke("web-01")
        setup.step()
        setup.step()  # the broker did not reload
        assert (revoked.connections, revoked.connected) == (1, True)
        assert len(setup.backend.sessions.to_end()) == 1
        setup.let_sessions_end()
        wait_for(lambda: not revoked.connected, "the agent to notice")
        assert setup.refuses("web-01", files)


def test_messages_queued_for_a_revoked_agent_are_dropped(setup: BrokerSetup) -> None:
    files = setup.enroll("web-01")
    with MqttConnection(setup.site.url, "acm-server", tls=setup.site.server, subscriptions=["acm/+/ack"]) as server:
        with setup.connection("web-01", files) as revoked:
            assert revoked.wait_connected(10)
        assert server.wait_connected(10)
        server.publish("acm/web-01/command", b"kept for the agent")
        wait_for(lambda: server.backlog == 0, "the broker to have it")
        setup.revoke("web-01")
        setup.step()
        setup.let_sessions_end()
        with setup.connection("web-01", setup.enroll("web-01"), topic="ack") as again:
            assert again.wait_connected(10)
            server.publish("acm/web-01/ack", b"first")
            assert [delivery.payload for delivery in again.drain(10)] == [b"first"]


def test_agent_that_enrolled_again_reconnects(setup: BrokerSetup) -> None:
    setup.enroll("web-01")
    setup.revoke("web-01")
    with setup.connection("web-01", setup.enroll("web-01")) as again:
        assert again.wait_connected(10)
        setup.step()
        setup.let_sessions_end()
        wait_for(lambda: again.connections > 1 and again.connected, "the agent to come back")


def test_broker_of_another_authority_is_not_trusted(setup: BrokerSetup, tmp_path: Path) -> None:
    stranger = SecuredSite(tmp_path / "other")
    key = Ed25519PrivateKey.generate()
    certificate = stranger.authority.issue("web-01", key.public_key(), timedelta(days=1))
    address = parse_url(setup.site.url)
    with raises_code(TakeoverError, "tls_handshake_failed") as caught:
        take_over(address, stranger.authority.certificate, certificate, key, "web-01")
    assert "from an authority that is not trusted" in str(caught.value)
