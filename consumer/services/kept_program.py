"""A program that runs with all its descendants under a keeper, so that it is known what it leaves behind."""

import errno
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from consumer.system.confinement import LauncherFailed
from consumer.system.programs import exit_in_words

__all__ = [
    "KeptProgram",
]


_KEEPER = Path(__file__).with_name("keeper.py")
_LAUNCH_TIMEOUT_S = 30.0  # for a busy machine
_LINE_BYTES = 4096


class KeptProgram:
    """One running program. `trace` is the file for the keeper's process id.

    Raises OSError if it cannot be executed, and LauncherFailed if its keeper did not get that far.

    `exit_status` is that of the program itself, negative for a signal, or None while it runs. Any thread may ask.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], trace: Path) -> None:
        self.pid = 0
        self._exit_status: int | None = None
        self._left = 0
        self._lock = threading.Lock()
        try:
            self._report, theirs = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _not_run(error) from error
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(theirs), str(trace), *argv],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs],
                start_new_session=True,
                env=environment,
            )
        except BaseException as error:
            os.close(self._report)
            if not isinstance(error, OSError):
                raise
            raise _not_run(error) from error
        finally:
            os.close(theirs)
        self._await_start()

    def _await_start(self) -> None:
        readable = select.select([self._report], [], [], _LAUNCH_TIMEOUT_S)[0]
        kind, _, value = (os.read(self._report, _LINE_BYTES) if readable else b"").decode().partition(" ")
        if kind != "pid":
            self._keeper.kill()
            status = self._keeper.wait()
            os.close(self._report)
            raise _failure(kind, value, status, is_late=not readable)
        os.set_blocking(self._report, False)
        first, _, rest = value.partition("\n")
        self.pid = int(first)
        self._take(rest)

    @property
    def exit_status(self) -> int | None:
        """How the program ended, or None while it runs."""
        self._read()
        return self._exit_status

    @property
    def left(self) -> bool:
        """Whether the program has ended and processes that it started still run."""
        self._read()
        return self._exit_status is not None and self._left > 0 and self._keeper.poll() is None

    @property
    def is_gone(self) -> bool:
        """Whether the program and all its descendants have ended."""
        if self.exit_status is not None and self._left == 0:
            self._keeper.wait()  # it ends at once
        return self._keeper.poll() is not None

    def wait(self, timeout_s: float) -> int | None:
        """Wait at most so long for the program itself; return its exit status, or None."""
        end = monotonic() + timeout_s
        while self.exit_status is None and (left := end - monotonic()) > 0:
            select.select([self._report], [], [], left)
        return self._exit_status

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait at most so long until the program and all its descendants have ended; return whether they have."""
        if self.is_gone:
            return True
        try:
            self._keeper.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def terminate(self) -> None:
        """Ask the program and its descendants to end (TERM)."""
        self._keeper.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the program and its descendants (KILL)."""
        self._keeper.send_signal(signal.SIGQUIT)

    def close(self) -> None:
        """Release a program that is gone; its exit status stays known."""
        os.close(self._report)

    def _read(self) -> None:
        with self._lock:
            if self._exit_status is not None:
                return
            try:
                read = os.read(self._report, _LINE_BYTES).decode()
            except BlockingIOError:
                return
            self._take(read)
            if not read and self._exit_status is None:  # the keeper was killed, and with it the program
                self._exit_status = -signal.SIGKILL

    def _take(self, line: str) -> None:
        if line.startswith("exit "):
            _, status, left = line.split()
            self._exit_status, self._left = int(status), int(left)


def _not_run(error: OSError) -> LauncherFailed:
    return LauncherFailed(error.errno, f"its keeper {sys.executable} could not be run: {error.strerror}")


def _failure(kind: str, value: str, status: int, *, is_late: bool) -> OSError:
    if kind in ("error", "failed"):
        number = int(value)
        reason = os.strerror(number)
        return OSError(number, reason) if kind == "error" else LauncherFailed(number, f"its keeper: {reason}")
    how = f"did not start it within {_LAUNCH_TIMEOUT_S:g} s" if is_late else exit_in_words(status)
    return LauncherFailed(errno.ETIMEDOUT if is_late else errno.ENOEXEC, f"its keeper {how}")
