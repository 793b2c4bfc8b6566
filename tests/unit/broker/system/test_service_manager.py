"""What a program tells the service manager, on a real socket and a turned clock."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.system.service_manager import ServiceManager


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Manager:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def received(self) -> list[list[str]]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode().splitlines())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@acm-test-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.socket.close()


def test_program_is_ready_once_connected_and_then_reports_each_turn(manager: Manager, address: str) -> None:
    clock = Clock()
    program = ServiceManager(clock, {"NOTIFY_SOCKET": address})
    program.turn(ready=False, status="Connecting.")
    assert manager.received() == [["WATCHDOG=1", "STATUS=Connecting."]]
    program.turn(ready=True, status="Connected.")
    assert manager.received() == [["READY=1", "WATCHDOG=1", "STATUS=Connected."]]
    program.turn(ready=True, status="Connected.")
    assert manager.received() == []
    clock.now += 5
    program.turn(ready=True, status="Connected.")
    assert manager.received() == [["WATCHDOG=1", "STATUS=Connected."]]
    program.stopping()
    assert manager.received() == [["STOPPING=1", "STATUS=Stopping."]]


def test_program_that_cannot_connect_is_ready_after_a_bounded_wait(manager: Manager, address: str) -> None:
    clock = Clock()
    program = ServiceManager(clock, {"NOTIFY_SOCKET": address})
    for _ in range(16):
        program.turn(ready=False, status="No connection.")
        clock.now += 1
    assert [message for message in manager.received() if "READY=1" in message] == [
        ["READY=1", "WATCHDOG=1", "STATUS=No connection."]
    ]


def test_short_watchdog_is_fed_in_time(manager: Manager, address: str) -> None:
    clock = Clock()
    program = ServiceManager(clock, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"})
    for _ in range(10):
        program.turn(ready=True, status="Connected.")
        clock.now += 0.25
    assert len(manager.received()) == 5


def test_status_of_several_lines_cannot_send_another_message(manager: Manager, address: str) -> None:
    ServiceManager(Clock(), {"NOTIFY_SOCKET": address}).turn(ready=False, status="a\nSTOPPING=1")
    (message,) = manager.received()
    assert "STOPPING=1" not in message


def test_health_file_is_touched_while_connected_only(tmp_path: Path) -> None:
    file, clock = tmp_path / "health", Clock()
    program = ServiceManager(clock, {"ACM_HEALTH_FILE": str(file)})
    program.turn(ready=False, status="Connecting.")
    assert not file.exists()
    program.turn(ready=True, status="Connected.")
    os.utime(file, (0, 0))
    clock.now += 5
    program.turn(ready=True, status="Connected.")
    assert file.stat().st_mtime > 0


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": "/nowhere"}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"WATCHDOG_USEC": "soon"}]
)
def test_program_works_without_a_service_manager(environment: dict[str, str]) -> None:
    program = ServiceManager(Clock(), {**environment, "ACM_HEALTH_FILE": "/nowhere/health"})
    program.turn(ready=True, status="Connected.")
    program.stopping()
