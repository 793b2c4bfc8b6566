"""A child process of the agent as the managed service."""

import contextlib
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path

import structlog

from consumer.errors import ServiceError
from consumer.ports import Clock, ServiceState
from consumer.services.wish import Wish

__all__ = ["ChildService"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Trace:
    """Remembers the child in a file, so that the next agent finds one that outlived a killed agent."""

    path: Path

    def write(self, pid: int) -> None:
        self.path.write_text(f"{pid} {_start_time(pid)}")

    def find(self) -> int | None:
        """Return the process id of a child that still runs; its start time tells it from a reused id."""
        try:
            pid, started = self.path.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if started == _start_time(int(pid)) else None


def _start_time(pid: int) -> str:
    """Return field 22 of /proc/PID/stat (proc(5)), or nothing for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


@dataclass(frozen=True)
class _Incarnation:
    child: subprocess.Popen[bytes]
    name: str

    @property
    def runs(self) -> bool:
        return self.child.poll() is None


class ChildService:
    """A child process in a process group of its own, started again when it dies, with growing waits.

    `step` must be called from time to time; it starts what should run. All methods may be called from any thread.
    """

    def __init__(
        self,
        argv: Listing[str],
        directory: Path,
        clock: Clock,
        waits: Callable[[], Iterator[float]],
        *,
        grace_s: float,
    ) -> None:
        self._argv = list(argv)
        self._wish = Wish(directory / "service-stopped")
        self._trace = _Trace(directory / "service.pid")
        self._clock = clock
        self._new_waits = waits
        self._waits = waits()
        self._grace_s = grace_s
        self._lock = threading.RLock()
        self._pause = threading.Event()
        self._current: _Incarnation | None = None
        self._orphan_since: float | None = None
        self._start_at = 0.0

    def state(self) -> ServiceState:
        """Look at the child; never waits for a start or a stop that is under way."""
        current = self._current
        if current is None or not current.runs:
            return ServiceState("child", running=False)
        return ServiceState("child", True, current.name, {"pid": current.child.pid})

    def step(self) -> None:
        """Start the child when it should run and its wait is over; do nothing while a start or stop is under way."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._start_if_due()
        finally:
            self._lock.release()

    def next_due(self) -> float | None:
        """Return None: a child's death cannot be foreseen."""

    def _start_if_due(self) -> None:
        if self._wish.stopped or self.state().running or self._clock.monotonic() < self._start_at:
            return
        if not self._orphan_is_gone():
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
            child = subprocess.Popen(self._argv, start_new_session=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise ServiceError(f"The service could not be started: {error.strerror}: {self._argv[0]}.") from error
        self._trace.write(child.pid)
        self._current = _Incarnation(child, uuid.uuid4().hex)

    def _orphan_is_gone(self) -> bool:
        """End, step by step, the child of an agent that was killed: TERM, and KILL after the grace."""
        pid = self._trace.find() if self._current is None else None
        if pid is None:
            return True
        if self._orphan_since is None:
            _log.warning("service_outlived_agent", pid=pid)
            self._orphan_since = self._clock.monotonic()
            _signal_group(pid, signal.SIGTERM)
        elif self._clock.monotonic() >= self._orphan_since + self._grace_s:
            _signal_group(pid, signal.SIGKILL)
        return False

    def _end_orphan(self) -> None:
        while not self._orphan_is_gone():
            self._pause.wait(0.05)

    def start(self, deadline: float) -> ServiceState:
        """Start the child unless it runs, and forget the wish to keep it stopped."""
        with self._lock:
            self._wish.set_stopped(False)
            self._waits = self._new_waits()
            if not self.state().running:
                self._end_orphan()
                self._spawn()
            return self.state()

    def stop(self, deadline: float) -> ServiceState:
        """Stop the child: TERM to its group, KILL after the grace, at the latest by `deadline`; remember the wish."""
        with self._lock:
            self._wish.set_stopped(True)
            self.shut_down(deadline)
            return self.state()

    def shut_down(self, deadline: float = float("inf")) -> None:
        """Stop the child without a wish, as when the agent itself ends."""
        with self._lock:
            self._end_orphan()
            current = self._current
            if current is None or not current.runs:
                return
            child = current.child
            _signal_group(child.pid, signal.SIGTERM)
            try:
                child.wait(max(0.0, min(self._grace_s, deadline - self._clock.monotonic())))
            except subprocess.TimeoutExpired:
                _log.warning("service_killed", pid=child.pid, grace_s=self._grace_s)
                _signal_group(child.pid, signal.SIGKILL)
                child.wait()

    def restart(self, deadline: float) -> ServiceState:
        """Replace the child by a new one."""
        with self._lock:
            self.shut_down(deadline)
            return self.start(deadline)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
