"""A takeover at a broker that cannot be reached, refuses the certificate, or answers nothing."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.enrolment import mqtt_takeover
from broker.enrolment.mqtt_takeover import TakeoverError, TakeoverRefused, take_over
from broker.mqtt import probe
from broker.mqtt.address import parse_url
from broker.pki.authority import CertificateAuthority, create_authority
from tests.support.errors import raises_code
from tests.support.fakes.mqtt5_broker import connack
from tests.support.makers import NOW
from tests.support.secured import SecuredSite

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def test_takeover_at_a_port_that_nobody_listens_on_is_reported(tmp_path: Path) -> None:
    create_authority(tmp_path / "ca", "test", NOW)
    authority = CertificateAuthority(tmp_path / "ca", now=lambda: NOW)
    key = Ed25519PrivateKey.generate()
    certificate = authority.issue("web-01", key.public_key(), timedelta(days=1))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = parse_url(f"mqtts://127.0.0.1:{bound.getsockname()[1]}")
        with raises_code(TakeoverError, "broker_unreachable"):
            take_over(address, authority.certificate, certificate, key, "web-01")


class OneVersionBroker:
    """Takes one version of TLS, checks the revocation list, and answers the first packet."""

    def __init__(self, site: SecuredSite, version: ssl.TLSVersion, tickets: int, answer: bytes) -> None:
        self._site, self._version, self._tickets, self._answer = site, version, tickets, answer

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run it for the block; yield its URL."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=self._serve, args=(server,))
            thread.start()
            try:
                yield f"mqtts://127.0.0.1:{server.getsockname()[1]}"
            finally:
                server.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _serve(self, server: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = self._version
        context.num_tickets = self._tickets
        context.load_cert_chain(self._site.directory / "broker.pem")
        context.load_verify_locations(self._site.server.ca)
        context.load_verify_locations(self._site.files.revocation_list)
        context.verify_mode, context.verify_flags = ssl.CERT_REQUIRED, ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        with suppress(OSError):
            while True:
                plain, _ = server.accept()
                with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as near:
                    near.recv(1000)
                    near.sendall(self._answer)
                    while near.recv(1000):
                        pass  # until the client closes


Try = Callable[[str], None]


@pytest.fixture
def site(tmp_path: Path) -> SecuredSite:
    return SecuredSite(tmp_path)


@pytest.fixture
def attempt(site: SecuredSite) -> Try:
    """A takeover of web-01 at a URL."""

    def take(url: str) -> None:
        key = Ed25519PrivateKey.generate()
        certificate = site.authority.issue("web-01", key.public_key(), timedelta(minutes=1))
        take_over(parse_url(url), site.authority.trusted, certificate, key, "web-01")

    return take


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tickets", [0, 2])
def test_revoked_certificate_is_told_apart_in_every_version_of_tls(
    site: SecuredSite, version: ssl.TLSVersion, tickets: int
) -> None:
    for number in range(5):
        key = Ed25519PrivateKey.generate()
        revoked = site.authority.issue(f"web-{number}", key.public_key(), timedelta(minutes=1))
        site.revoke(site.save(revoked, key))
        with OneVersionBroker(site, version, tickets, connack()).running() as url, pytest.raises(TakeoverRefused):
            take_over(parse_url(url), site.authority.trusted, revoked, key, "web-01")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("tickets", [0, 2])
def test_session_is_taken_over_in_every_version_of_tls(
    site: SecuredSite, attempt: Try, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion, tickets: int
) -> None:
    monkeypatch.setattr(probe, "_VERDICT_S", 0.1)
    with OneVersionBroker(site, version, tickets, connack()).running() as url:
        attempt(url)


@pytest.mark.parametrize("version", VERSIONS)
def test_broker_without_a_connack_is_not_waited_for(
    site: SecuredSite, attempt: Try, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    monkeypatch.setattr(mqtt_takeover, "_TIMEOUT_S", 0.2)
    with (
        OneVersionBroker(site, version, 2, b"").running() as url,
        raises_code(TakeoverError, "broker_unreachable") as caught,
    ):
        attempt(url)
    assert "timed out" in str(caught.value)
