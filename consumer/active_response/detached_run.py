"""One run of a script that continues when the agent is killed, so that the next process can determine its outcome.

A small shell holds a lock (flock(2)) while the script runs and leaves the exit status in a file, by rename(2). If there
is a status, the run has ended; if the lock is held, it is running; otherwise it was never started, or was interrupted.
"""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from broker.system.files import inodes_named
from broker.system.lock import is_locked, locked
from consumer.errors import StoreError
from consumer.ports import Clock
from consumer.settings import Confinement
from consumer.system.confinement import launch
from consumer.system.process_group import end_group, signal_group
from consumer.system.programs import clean_environment

__all__ = [
    "Run",
    "RunEnd",
]


_POLL_INTERVAL_S = 0.02
_KILL_TIMEOUT_S = 10.0  # for the kernel to end a killed process
_SHELL_POLLS = 25
_STDERR_BYTES = 4096
# $1 is the run's directory, $2 the script; stdin is the locked file. TERM ends the script, not the shells that
# report on it. Output beyond the first bytes is read and discarded.
_SHELL = f"""
trap : TERM
echo $$ >"$1/pid.part" && mv "$1/pid.part" "$1/pid"
(
    trap : TERM
    "$2" <"$1/input" 2>&1 >/dev/null
    echo $? >"$1/status.part" && mv "$1/status.part" "$1/status"
) | (
    trap '' TERM
    head -c {_STDERR_BYTES} >"$1/stderr"
    cat >/dev/null
)
"""


_left_running: list[subprocess.Popen[bytes]] = []  # shells that read what a daemon of their script still prints


def _reap() -> None:
    _left_running[:] = [shell for shell in _left_running if shell.poll() is None]


@contextlib.contextmanager
def _readable(run: Path) -> Iterator[None]:
    """Raise StoreError if a file of the run cannot be read now: then the run is neither lost nor ended."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"The run in {run} cannot be read: {error.strerror}.", code="run_unreadable") from error


@dataclass(frozen=True)
class RunEnd:
    """How a run ended. `exit_status` is None if it was interrupted; `overdue`: it was stopped at its deadline."""

    exit_status: int | None
    overdue: bool
    stderr: str

    @property
    def good(self) -> bool:
        """Whether it ended by itself with exit status 0."""
        return self.exit_status == 0 and not self.overdue


@dataclass
class Run:
    """One run, recorded in its own directory: `begin` it once, `wait` for it in this process or a later one."""

    directory: Path
    clock: Clock
    confinement: Confinement = Confinement()
    grace_s: float = 2.0
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def begin(self, script: str, line: bytes, cwd: Path) -> None:
        """Start the script, a path relative to `cwd`, its working directory, with one line on stdin; raises OSError."""
        with inodes_named(self.directory.parent):
            self.directory.mkdir(mode=0o700, parents=True)
            (self.directory / "input").write_bytes(line)
        with locked(self._lock) as lock:
            self._child = launch(
                ["/bin/sh", "-c", _SHELL, "acm-run", str(self.directory), script],
                self.confinement,
                environment=clean_environment(),
                cwd=cwd,
                stdin=lock,
                output=subprocess.DEVNULL,
            )

    @property
    def is_lost(self) -> bool:
        """Whether it neither ended nor is running: it was never started, or was interrupted."""
        return not self._is_running() and self._status() is None

    def wait(self, deadline: float) -> RunEnd:
        """Wait until it ends; at the deadline (monotonic seconds), send its group TERM, then KILL after the grace."""
        good = self._ends_by(deadline)
        if not good and end_group(self._signal_group, self._ends_within, self.grace_s, and_leftovers=False):
            self._ends_within(_KILL_TIMEOUT_S)
        self._wait_for_shell()
        return RunEnd(self._status(), not good, self._stderr())

    def _ends_within(self, seconds: float) -> bool:
        return self._ends_by(self.clock.monotonic() + seconds)

    def _ends_by(self, deadline: float) -> bool:
        pause = threading.Event()
        while self._status() is None and self._is_running():
            if self.clock.monotonic() >= deadline:
                return False
            pause.wait(_POLL_INTERVAL_S)
        return True

    def _wait_for_shell(self) -> None:
        """Wait for stderr, which is complete a moment after the status, unless the script left something running."""
        pause = threading.Event()
        for _ in range(_SHELL_POLLS):
            if not self._is_running():
                break
            pause.wait(_POLL_INTERVAL_S)
        if self._child is not None:
            _left_running.append(self._child)
        _reap()

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"

    def _is_running(self) -> bool:
        with _readable(self.directory):
            return is_locked(self._lock)

    def _status(self) -> int | None:
        with _readable(self.directory), contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.directory / "status").read_text())
        return None

    def _stderr(self) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / "stderr").read_bytes().decode(errors="replace")
        return ""

    def _signal_group(self, number: signal.Signals) -> None:
        # While the lock is held, the shell runs, so its process id, which is also the group's, cannot have been reused.
        with _readable(self.directory), contextlib.suppress(FileNotFoundError, ValueError):
            signal_group(int((self.directory / "pid").read_text()), number)
