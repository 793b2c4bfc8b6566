"""A flood of idle connections at an enrolment server that may open few files, and what others get meanwhile."""

import contextlib
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.pki.authority import CertificateAuthority, create_authority
from broker.signing.key_store import create_signing_keys
from tests.support.brokers import free_port
from tests.support.waiting import wait_for

CONNECTIONS = 1100
OPEN_FILES = 128
REQUEST = b"GET /v1/ca HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    ca = tmp_path / "ca"
    create_authority(ca, "test", datetime.now(UTC))
    create_signing_keys(ca / "signing", datetime.now(UTC))
    CertificateAuthority(ca, now=lambda: datetime.now(UTC)).write_server_certificate(["127.0.0.1"], ca)
    return ca


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def limited_server(authority: Path, log: Path) -> Iterator[int]:
    """Run `acm enroll-server` with few file descriptors; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "broker", "enroll-server", "--ca", str(authority), "--listen", f"127.0.0.1:{port}"]
    command += ["--broker", "mqtt://127.0.0.1", "--ledger", f"sqlite:///{authority.parent}/ledger.db"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'ulimit -n {OPEN_FILES}; exec "$@"', "sh", *command], stdout=output, stderr=output
        )
    try:
        wait_for(lambda: listens(port), "the enrolment server to listen", 30)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(count)]
        yield opened


def answer(port: int, authority: Path, source: str) -> bytes:
    """Return the status of a request that is sent from this address of this machine; raises OSError."""
    context = ssl.create_default_context(cafile=authority / "ca.crt")
    with (
        socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(REQUEST)
        return secured.recv(1000).split(b" ")[1]


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_flood_of_idle_connections_stops_neither_others_nor_fills_the_log(authority: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with limited_server(authority, log) as port, idle_connections(port, CONNECTIONS) as connections:
        wait_for(lambda: sum(map(is_closed, connections)) >= CONNECTIONS - OPEN_FILES, "most to be closed")
        assert answer(port, authority, "127.0.0.2") == b"200"
        with pytest.raises((ConnectionError, ssl.SSLError)):
            answer(port, authority, "127.0.0.1")  # refused at once, as the flood is
    assert log.stat().st_size < 10_000
