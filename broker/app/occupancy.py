"""Which `acm up` runs in a directory: at most one, found and ended by others through its files.

lock            locked while it runs; has its process id
programs.lock   locked while it or one of its programs runs, which inherit the lock
ready           exists while all of its programs work
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic

from broker.errors import BrokerError
from broker.system.lock import acquire_lock, is_locked, locked

__all__ = [
    "AlreadyRuns",
    "Occupancy",
    "OccupancyError",
]


_POLL_INTERVAL_S = 0.05
_LEFTOVERS_TIMEOUT_S = 15.0
_WIDTH = 20  # of the process id: written at once over an earlier one


class OccupancyError(BrokerError):
    """What runs in a directory has not ended, or cannot be ended by this user."""

    code = "occupancy_error"


class AlreadyRuns(BrokerError):
    """Another `acm up` runs in the directory."""

    code = "already_runs"


class Occupancy:
    """The files of who runs in a directory, in `run` there. Methods raise OSError if the files cannot be used."""

    def __init__(self, machine: Path) -> None:
        self._machine = machine
        self.directory = directory = machine / "run"
        self._lock = directory / "lock"
        self._programs_lock = directory / "programs.lock"
        self._ready = directory / "ready"
        self._handle = -1

    @contextlib.contextmanager
    def taken(self) -> Iterator[int]:
        """Let this process, and those that it forks, run here in the block; yield the descriptor for its programs.

        Raises AlreadyRuns, and OccupancyError if programs of one that was killed do not end.
        """
        with contextlib.ExitStack() as held:
            try:
                handle = held.enter_context(locked(self._lock))
            except BlockingIOError:
                raise AlreadyRuns(f"acm up runs in {self._machine} already (process {self.process}).") from None
            os.ftruncate(handle, 0)
            self._handle = handle
            self.note_process()
            self._ready.unlink(missing_ok=True)
            programs = self._await_leftovers()
            held.callback(os.close, programs)
            yield programs

    def note_process(self) -> None:
        """Record this process as the one that runs here; a child that continues in its place does so, too."""
        os.pwrite(self._handle, f"{os.getpid():<{_WIDTH}}".encode(), 0)

    def note_ready(self) -> None:
        """Record that all programs work."""
        self._ready.touch(mode=0o600)

    def note_end(self) -> None:
        """Record that they do not work any more."""
        self._ready.unlink(missing_ok=True)

    @property
    def process(self) -> int | None:
        """The process that runs here; None if none does, or if it has begun in this moment."""
        if not is_locked(self._lock):
            return None
        text = self._lock.read_text().strip()
        return int(text) if text else None

    @property
    def is_taken(self) -> bool:
        """Whether one runs here."""
        return is_locked(self._lock)

    def wait_ready(self) -> bool:
        """Wait until all programs of the one that runs here work; False if it ends before."""
        pause = Event()
        while not self._ready.exists():
            if not self.is_taken:
                return False
            pause.wait(_POLL_INTERVAL_S)
        return True

    def end(self, timeout_s: float) -> bool:
        """End the one that runs here, and wait until its programs have ended; return whether any ran.

        Raises OccupancyError if they do not end within `timeout_s` seconds, or belong to another user.
        """
        process = self.process
        if process is not None:
            self._terminate(process, timeout_s)
        elif not is_locked(self._programs_lock):
            return False
        os.close(self._await_leftovers())
        return True

    def _terminate(self, process: int, timeout_s: float) -> None:
        try:
            handle = os.pidfd_open(process)
        except ProcessLookupError:
            return
        try:
            if self.process != process:  # it ended, and its id may be that of another process
                return
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            if not ended.poll(timeout_s * 1000):
                raise OccupancyError(
                    f"Process {process} in {self._machine} has not ended {timeout_s:g} s after TERM: "
                    f"run `kill -9 {process}`.",
                    code="has_not_ended",
                )
        except PermissionError as error:
            raise OccupancyError(
                f"Process {process} in {self._machine} belongs to another user: run acm down as that user.",
                code="of_another_user",
            ) from error
        finally:
            os.close(handle)

    def _await_leftovers(self) -> int:
        """Lock the programs' lock, once those of one that was killed have ended; return the descriptor."""
        pause, deadline = Event(), monotonic() + _LEFTOVERS_TIMEOUT_S
        while True:
            try:
                return acquire_lock(self._programs_lock)
            except BlockingIOError as error:
                if monotonic() >= deadline:
                    raise OccupancyError(
                        f"Programs of an earlier acm up in {self._machine} do not end: "
                        f"`fuser {self._programs_lock}` lists their processes; end them.",
                        code="leftovers_do_not_end",
                    ) from error
            pause.wait(_POLL_INTERVAL_S)
