"""A child process of the agent as the managed service."""

import contextlib
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from consumer.errors import ServiceError
from consumer.ports import Clock, ServiceState, Stop
from consumer.services.desired_state import DesiredState
from consumer.system.pidfile import PidFile
from consumer.system.process_group import OrphanedGroup, end_group, signal_group
from consumer.system.programs import environment_of_service, exit_in_words

__all__ = [
    "ChildService",
]


_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Incarnation:
    child: subprocess.Popen[bytes]
    name: str

    @property
    def runs(self) -> bool:
        return self.child.poll() is None


class ChildService:
    """A child process in its own process group, restarted when it dies, with growing waits.

    `step` must be called regularly; it starts the child when it should run. Thread-safe.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        clock: Clock,
        waits: Callable[[], Iterator[float]],
        *,
        grace_s: float,
        settle_s: float,
    ) -> None:
        self._argv = list(argv)
        self._desired = DesiredState(directory / "service-stopped")
        self._pid_file = PidFile(directory / "service.pid")
        self._orphan = OrphanedGroup(self._pid_file, clock, grace_s, event="service_outlived_agent")
        self._clock = clock
        self._new_waits = waits
        self._waits = waits()
        self._grace_s = grace_s
        self._settle_s = settle_s
        self._lock = threading.RLock()
        self._current: _Incarnation | None = None
        self._start_at = 0.0

    def state(self) -> ServiceState:
        """Return the state of the child; never waits for a start or stop in progress."""
        current = self._current
        if current is None or not current.runs:
            return ServiceState("child", running=False)
        return ServiceState("child", True, current.name, {"pid": current.child.pid})

    def step(self) -> None:
        """Start the child if it should run and its wait has passed; do nothing during a start or stop."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._start_if_due()
        finally:
            self._lock.release()

    def next_due(self) -> float | None:
        """Return None: a child's death cannot be predicted."""

    def _start_if_due(self) -> None:
        if self._desired.stopped or self.state().running or self._clock.monotonic() < self._start_at:
            return
        if self._current is None and not self._orphan.step():
            return
        if self._current is not None:
            _log.warning("service_died", exit_status=self._current.child.returncode)
        self._start_at = self._clock.monotonic() + next(self._waits)
        try:
            self._spawn()
        except ServiceError as error:
            _log.error("service_not_started", reason=str(error))

    def _spawn(self) -> None:
        try:
            child = subprocess.Popen(
                self._argv, start_new_session=True, stdin=subprocess.DEVNULL, env=environment_of_service()
            )
        except OSError as error:
            raise ServiceError(
                f"The service could not be started: {error.strerror}: {self._argv[0]}.", code="not_started"
            ) from error
        self._current = _Incarnation(child, uuid.uuid4().hex)
        try:
            self._pid_file.write(child.pid)
        except OSError as error:  # needed only if the agent is killed
            _log.warning("pid_file_not_written", reason=str(error))

    def _end_orphan(self, deadline: float) -> None:
        if self._current is None:
            self._orphan.end(deadline)

    def start(self, deadline: float) -> ServiceState:
        """Start the child unless it runs, and record that it should run.

        Raises ServiceError when it cannot be started or ends within `settle_s` seconds; `step` then tries again.
        """
        with self._lock:
            self._desired.set_stopped(False)
            self._waits = self._new_waits()
            if not self.state().running:
                self._end_orphan(deadline)
                self._spawn()
                self._watch_startup(deadline)
            return self.state()

    def _watch_startup(self, deadline: float) -> None:
        assert self._current is not None
        seconds = self._at_most(self._settle_s, deadline)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._current.child.wait(seconds)
            raise ServiceError(
                f"The service was started, but {exit_in_words(status)} at once; the agent will try again.",
                code="ended_at_once",
            )
        if seconds < self._settle_s:
            raise ServiceError(
                "The service was started, but the deadline passed before it had run for settle_s seconds.",
                code="timed_out",
            )

    def stop(self, deadline: float) -> ServiceState:
        """Stop the child, like `shut_down`, and record that it should stay stopped."""
        with self._lock:
            self._desired.set_stopped(True)
            stop = self.shut_down(deadline)
            return replace(self.state(), stop=stop)

    def shut_down(self, deadline: float = float("inf")) -> Stop | None:
        """Stop the child without recording it, for the agent's own exit; return None if it did not run.

        Sends TERM to its group, and KILL after the grace period, at `deadline` at the latest. Processes that it leaves
        in its group are killed.
        """
        with self._lock:
            self._end_orphan(deadline)
            current = self._current
            if current is None or not current.runs:
                return None
            stop = _end(current.child, self._at_most(self._grace_s, deadline))
            current.child.wait()
            return stop

    def restart(self, deadline: float) -> ServiceState:
        """Replace the child with a new one; raises ServiceError, like `start`."""
        with self._lock:
            stop = self.shut_down(deadline - self._settle_s)
            return replace(self.start(deadline), stop=stop)

    def _at_most(self, seconds: float, deadline: float) -> float:
        return max(0.0, min(seconds, deadline - self._clock.monotonic()))


def _end(child: subprocess.Popen[bytes], grace_s: float) -> Stop:
    killed = end_group(partial(signal_group, child.pid), partial(_ends_within, child), grace_s)
    if killed:
        _log.warning("service_killed", pid=child.pid, grace_s=grace_s)
    return Stop(killed=killed, grace_s=grace_s)


def _ends_within(child: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(seconds)
    return child.returncode is not None
