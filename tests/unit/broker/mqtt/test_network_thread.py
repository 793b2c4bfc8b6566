"""The network thread of a client whose loop does not end, or has ended."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.mqtt.network_thread import ensure_running, stop_within
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


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


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
