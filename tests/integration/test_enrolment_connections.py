"""The limits of the enrolment server's connections: their number, and the lifetime of each."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.app.config import load_config
from broker.app.enrolment_server import EnrolmentServer, EnrolmentServerError
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.revocation_file import RevocationFile
from broker.signing.key_store import create_signing_keys
from broker.web.server import WebLimits
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for


def server_at(listen: str, tmp_path: Path, **options: Any) -> EnrolmentServer:
    ca = tmp_path / "ca"
    create_authority(ca, "test", datetime.now(UTC))
    create_signing_keys(ca / "signing", datetime.now(UTC))
    CertificateAuthority(ca, now=lambda: datetime.now(UTC)).write_server_certificate(["127.0.0.1"], ca)
    flags = {
        "ca": str(ca),
        "ledger": f"sqlite:///{tmp_path}/ledger.db",
        "enroll_listen": listen,
        "enroll_broker": "mqtt://mqtt",
    }
    return EnrolmentServer(load_config(None, flags, {}), **options)


@pytest.fixture(params=[WebLimits(connection_lifetime_s=0.3)])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of a server with these limits, by default a short lifetime of connections."""
    port = free_port()
    server = server_at(f"127.0.0.1:{port}", tmp_path, limits=request.param)
    with on_a_thread(server):
        yield port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def connected(port: int, tmp_path: Path) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.crt")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True) as secured,
    ):
        yield secured


@pytest.mark.parametrize("sent", [b"", b"POST /v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"])
def test_incomplete_request_is_closed_after_the_lifetime(port: int, tmp_path: Path, sent: bytes) -> None:
    wait_for(lambda: listens(port), "the server to listen")
    with connected(port, tmp_path) as secured:
        secured.sendall(sent)
        try:
            answer = secured.recv(1000)
        except ConnectionError:
            answer = b""
        assert answer == b""


@pytest.mark.parametrize("port", [WebLimits(handshake_timeout_s=0.3)], indirect=True)
def test_connection_without_a_handshake_is_closed_soon(port: int) -> None:
    wait_for(lambda: listens(port), "the server to listen")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as idle:
        assert idle.recv(1) == b""


@pytest.mark.parametrize("port", [WebLimits(max_connections=8)], indirect=True)
def test_address_with_too_many_connections_is_refused_until_one_has_ended(port: int, tmp_path: Path) -> None:
    wait_for(lambda: listens(port), "the server to listen")
    wait_for(lambda: status_of_a_request(port, tmp_path) == b"200", "an answer while there is room")
    with connected(port, tmp_path), connected(port, tmp_path), pytest.raises((ConnectionError, ssl.SSLError)):
        status_of_a_request(port, tmp_path)  # a quarter of all connections is for one address
    wait_for(lambda: answers(port, tmp_path), "an answer when there is room again")


def answers(port: int, tmp_path: Path) -> bool:
    try:
        return status_of_a_request(port, tmp_path) == b"200"
    except OSError:
        return False


def status_of_a_request(port: int, tmp_path: Path) -> bytes:
    with connected(port, tmp_path) as secured:
        secured.sendall(b"GET /v1/ca HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return secured.recv(1000).split(b" ")[1]


@pytest.mark.parametrize("port", [WebLimits(max_requests=2)], indirect=True)
def test_connections_above_the_limit_get_503(port: int, tmp_path: Path) -> None:
    wait_for(lambda: listens(port), "the server to listen")
    wait_for(lambda: status_of_a_request(port, tmp_path) == b"200", "an answer while there is room")
    with connected(port, tmp_path):
        assert status_of_a_request(port, tmp_path) == b"503"
    wait_for(lambda: status_of_a_request(port, tmp_path) == b"200", "an answer when there is room again")


def test_new_certificate_is_used_without_a_restart(port: int, tmp_path: Path) -> None:
    wait_for(lambda: listens(port), "the server to listen")
    with connected(port, tmp_path) as secured:
        before = secured.getpeercert(binary_form=True)
    CertificateAuthority(tmp_path / "ca", now=lambda: datetime.now(UTC)).write_server_certificate(
        ["127.0.0.1"], tmp_path / "ca"
    )

    def presented() -> bytes | None:
        with connected(port, tmp_path) as secured:
            return secured.getpeercert(binary_form=True)

    wait_for(lambda: presented() != before, "the new certificate to be presented")


def test_server_ends_when_the_revocation_task_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RevocationFile, "refresh", lambda file: 1 / 0)
    server = server_at(f"127.0.0.1:{free_port()}", tmp_path, revocation_interval_s=0.01)
    with raises_code(EnrolmentServerError, "revocations_stopped"):
        server.run()


def test_server_on_the_ipv6_wildcard_accepts_ipv4(tmp_path: Path) -> None:
    port = free_port()
    with on_a_thread(server_at(f"[::]:{port}", tmp_path)):
        wait_for(lambda: listens(port), "the server to listen")
