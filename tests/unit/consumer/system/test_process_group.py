"""Ending a process group, with a fake group: which signals are sent, and when."""

import signal
from collections.abc import Callable

import pytest

from consumer.system.process_group import end_group


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
