"""The enrolment server's connections: a peer that says nothing does not hold one for ever."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker import enrolment_server
from broker.ca import CertificateAuthority, create_authority
from broker.config import load_config
from broker.signing_keys import create_signing_keys
from tests.brokers import free_port
from tests.waiting import wait_for


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server whose connections live for a short time."""
    monkeypatch.setattr(enrolment_server, "_CONNECTION_LIFETIME_S", 0.3)
    ca, port = tmp_path / "ca", free_port()
    create_authority(ca, "test", datetime.now(UTC))
    create_signing_keys(ca / "signing", datetime.now(UTC))
    CertificateAuthority(ca, now=lambda: datetime.now(UTC)).write_server_certificate(["127.0.0.1"], ca)
    flags = {
        "ca": str(ca),
        "ledger": f"sqlite:///{tmp_path}/ledger.db",
        "enroll_listen": f"127.0.0.1:{port}",
        "enroll_broker": "mqtt://mqtt",
    }
    server = enrolment_server.EnrolmentServer(load_config(None, flags, {}))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield port
    server.stop()
    thread.join(20)
    assert not thread.is_alive()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("words", [b"", b"POST /v1/enrol HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"])
def test_a_connection_that_comes_to_nothing_is_ended(port: int, tmp_path: Path, words: bytes) -> None:
    wait_for(lambda: listens(port), "the server to listen")
    context = ssl.create_default_context(cafile=tmp_path / "ca" / "ca.crt")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True) as secured,
    ):
        secured.sendall(words)
        try:
            answer = secured.recv(1000)
        except ConnectionError:
            answer = b""
        assert answer == b""
