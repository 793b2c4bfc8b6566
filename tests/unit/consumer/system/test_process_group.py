"""Ending a process group, with a fake group: which signals are sent, and when."""

import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.errors import ServiceError
from consumer.services.child import ChildService
from consumer.system.pidfile import PidFile
from consumer.system.process_group import OrphanedGroup, end_group
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


class FakeGroup:
    """A group whose leader ends on one of the signals, some seconds after it."""

    def __init__(self, ends_on: signal.Signals, after_s: float = 0.0) -> None:
        self.sent: list[signal.Signals] = []
        self._ends_on = ends_on
        self._after_s = after_s

    def ends_within(self, seconds: float) -> bool:
        return self._ends_on in self.sent and self._after_s <= seconds


@pytest.mark.parametrize("and_leftovers", [True, False])
def test_leader_that_ends_on_term_is_not_killed(and_leftovers: bool) -> None:
    group = FakeGroup(signal.SIGTERM, after_s=1.9)
    send: Callable[[signal.Signals], None] = group.sent.append
    assert not end_group(send, group.ends_within, 2.0, and_leftovers=and_leftovers)
    assert group.sent == [signal.SIGTERM, *([signal.SIGKILL] if and_leftovers else [])]


@pytest.mark.parametrize("and_leftovers", [True, False])
def test_leader_that_ignores_term_is_killed_after_the_grace(and_leftovers: bool) -> None:
    group = FakeGroup(signal.SIGKILL)
    assert end_group(group.sent.append, group.ends_within, 2.0, and_leftovers=and_leftovers)
    assert group.sent == [signal.SIGTERM, signal.SIGKILL]


def test_pid_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "service.pid").symlink_to("service.pid")  # a read that fails (ELOOP)
    orphan = OrphanedGroup(PidFile(tmp_path / "service.pid"), TurnedClock(), 1.0, event="outlived")
    with raises_code(ServiceError, "pid_file_unreadable"):
        orphan.step()


def test_service_is_not_started_beside_one_that_may_run(tmp_path: Path) -> None:
    (tmp_path / "service.pid").symlink_to("service.pid")  # a read that fails (ELOOP)
    mark = tmp_path / "started"
    service = ChildService(
        ["touch", str(mark)], tmp_path, TurnedClock(), lambda: itertools.repeat(1.0), grace_s=1.0, settle_s=1.0
    )
    service.step()
    assert "not known whether" in (service.problem() or "")
    assert not service.state().running
