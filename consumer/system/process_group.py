"""Ends a process with its whole group: TERM first, then KILL after a grace period."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable

import structlog

from consumer.errors import ServiceError
from consumer.ports import Clock
from consumer.system.pidfile import PidFile

__all__ = [
    "OrphanedGroup",
    "end_group",
    "signal_group",
]


_log = structlog.get_logger(__name__)
_POLL_INTERVAL_S = 0.05
_LAST_RESORT_S = 5.0


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group of this id, if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def end_group(
    send: Callable[[signal.Signals], None],
    ends_within: Callable[[float], bool],
    grace_s: float,
    *,
    and_leftovers: bool = True,
) -> bool:
    """Send TERM to a group, and KILL after `grace_s` seconds; return whether its leader had to be killed.

    `send` signals the group. `ends_within` waits at most the given seconds and returns whether the leader has ended. If
    it has, KILL ends the processes that it left in its group, if `and_leftovers`.
    """
    send(signal.SIGTERM)
    has_ended = ends_within(grace_s)
    if and_leftovers or not has_ended:
        send(signal.SIGKILL)
    return not has_ended


class OrphanedGroup:
    """A child that outlived a killed agent: found by its PID file, and ended with its group."""

    def __init__(
        self,
        pid_file: PidFile,
        clock: Clock,
        grace_s: float,
        *,
        event: str,
        last_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """`event` is logged when there is such a child; `grace_s` is the time between TERM and `last_signal`.

        A `last_signal` other than KILL is followed by KILL if the child does not end within seconds.
        """
        self._last_signal = last_signal
        self._pid_file = pid_file
        self._clock = clock
        self._grace_s = grace_s
        self._event = event
        self._pid: int | None = None
        self._kill_at = 0.0

    def step(self, deadline: float = float("inf")) -> bool:
        """Send the signal that is due, without waiting, and return whether the child is gone.

        The last one is due after the grace, or at `deadline` (monotonic seconds) if that is sooner. Raises ServiceError
        if the PID file cannot be read: then there may be a child.
        """
        try:
            pid, now = self._pid_file.find(), self._clock.monotonic()
        except OSError as error:
            raise ServiceError(
                f"It is not known whether an earlier process still runs: {error.filename}: {error.strerror}.",
                code="pid_file_unreadable",
            ) from error
        if self._pid is None and pid is not None:
            _log.warning(self._event, pid=pid)
            self._pid, self._kill_at = pid, now + self._grace_s
            signal_group(pid, signal.SIGTERM)
        elif self._pid is not None and (pid is None or now >= min(self._kill_at, deadline)):
            is_late = pid is None or now >= min(self._kill_at, deadline) + _LAST_RESORT_S
            # also the processes that it left in its group
            signal_group(self._pid, signal.SIGKILL if is_late else self._last_signal)
            self._pid = None if pid is None else self._pid
        return pid is None

    def end(self, deadline: float = float("inf"), *, give_up_at: float = float("inf")) -> None:
        """Wait until the child is gone; `give_up_at` (monotonic seconds) bounds the wait."""
        pause = threading.Event()
        while not self.step(deadline) and self._clock.monotonic() < give_up_at:
            pause.wait(_POLL_INTERVAL_S)
