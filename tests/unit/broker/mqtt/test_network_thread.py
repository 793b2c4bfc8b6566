"""The network thread of a client whose loop does not end, or has ended."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.mqtt.network_thread import break_connection, ensure_running, stop_within
from tests.support.authority import TestAuthority
from tests.support.threads import no_thread_left


class Loop:
    """A loop whose `loop_stop` returns only after `released` is set."""

    def __init__(self, open_socket: Any) -> None:
        self.released = threading.Event()
        self._socket = open_socket

    def loop_start(self) -> int:
        return 0

    def loop_stop(self) -> int:
        self.released.wait(10)
        return 0

    def socket(self) -> Any:
        return self._socket


def test_connection_of_a_loop_that_does_not_stop_is_broken(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop = Loop(ours)
    with capture_logs() as logs:
        stop_within(loop, 0.01)
    loop.released.set()
    assert theirs.recv(1) == b""
    assert [entry["event"] for entry in logs] == ["mqtt_stop_unfinished"]


def test_stop_needs_no_thread(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with no_thread_left():
        stop_within(Loop(ours), 10)
    assert theirs.recv(1) == b""


def test_loop_that_stops_in_time_keeps_its_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop = Loop(ours)
    loop.released.set()
    stop_within(loop, 10)
    ours.send(b"x")
    assert theirs.recv(1) == b"x"


def test_loop_is_restarted_though_its_socket_is_closed_or_missing() -> None:
    closed = socket.socket()
    closed.close()
    for open_socket in (closed, None):
        with capture_logs() as logs:
            ensure_running(Loop(open_socket))
        assert logs[-1]["event"] == "mqtt_network_thread_restarted"


def test_bytes_that_nobody_encrypted_are_never_read_from_a_broken_tls_connection(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    TestAuthority().write_identity(tmp_path, "broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    trusting.check_hostname = False
    ours, theirs = pair
    attacker = theirs.dup()
    accepting = threading.Thread(target=lambda: context.wrap_socket(theirs, server_side=True).close())
    accepting.start()
    with attacker, trusting.wrap_socket(ours) as secured:
        accepting.join()
        secured.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            secured.recv(1)  # the tickets that follow a handshake
        attacker.sendall(b"a message of the attacker")
        break_connection(Loop(secured))
        with pytest.raises(ssl.SSLError):
            secured.recv(100)
