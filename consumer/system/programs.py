"""Runs another program for a command, limited in time, output and resources, and ends its whole process group."""

import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, Self

import structlog

from broker.contract.messages import Output
from broker.system.log_throttle import LogThrottle
from broker.system.threads import is_exhaustion, waits_for_resources
from consumer.errors import ProgramError
from consumer.ports import Clock
from consumer.settings import Confinement
from consumer.system.confinement import LauncherFailed, launch
from consumer.system.interpreter import why_not_started
from consumer.system.process_group import end_group, signal_group

__all__ = [
    "OUTPUT_BYTES",
    "Bounds",
    "Ended",
    "Program",
    "clean_environment",
    "environment_of_service",
    "exit_in_words",
    "run_program",
]


_log = structlog.get_logger(__name__)
_throttle = LogThrottle(monotonic)
OUTPUT_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 16
_POLL_INTERVAL_S = 0.05  # how soon a cancel is noticed
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


@dataclass(frozen=True)
class Bounds:
    """How long a program may run, the event that cancels it, and its confinement.

    `deadline` is in seconds of the clock's `monotonic()`; `grace_s` is the time between TERM and KILL. It gets
    `environment` beside its own variables.
    """

    clock: Clock
    deadline: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    grace_s: float = 2.0
    confinement: Confinement = Confinement()
    environment: Mapping[str, str] = field(default_factory=dict)

    def as_agent(self) -> Self:
        """Return the same bounds for a program that needs the rights of the agent's own user."""
        return replace(self, confinement=self.confinement.as_agent())


@dataclass(frozen=True)
class Ended:
    """How a program ended. `exit_status` is negative for a signal; `overdue`: stopped at its deadline or cancelled."""

    exit_status: int
    output: Output
    overdue: bool

    @property
    def good(self) -> bool:
        """Whether it ended by itself with exit status 0."""
        return self.exit_status == 0 and not self.overdue

    def in_words(self) -> str:
        """Return how it ended, as the rest of a sentence after the program's name: 'ended with exit status 3'."""
        if self.overdue:
            return "did not end in time and was stopped"
        return exit_in_words(self.exit_status)


def exit_in_words(exit_status: int) -> str:
    """Return how a program ended by itself, as the rest of a sentence after its name: 'was ended by SIGSEGV'."""
    if exit_status < 0:
        names = {each.value: each.name for each in signal.Signals}
        return f"was ended by {names.get(-exit_status, f'signal {-exit_status}')}"
    return f"ended with exit status {exit_status}"


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the few environment variables that a program needs, and `more`, but none of the agent's own."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(more or {})


def environment_of_service() -> dict[str, str]:
    """Return the environment without the agent's own variables, for the managed service.

    These are ACM_*, and OTEL_*, by which the service would export under the agent's name, with its credentials.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("ACM_", "OTEL_"))}


class _Stream:
    """An output stream of the program: its beginning is kept, the rest is read and discarded."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.truncated = False
        self.closed = False

    def add(self, block: bytes) -> None:
        room = OUTPUT_BYTES - len(self.kept)
        self.kept += block[:room]
        self.truncated |= len(block) > room

    def text(self) -> str:
        return self.kept.decode("utf-8", errors="replace")


class Program:
    """One running program. Use it in a `with` block, which ends its whole group if left before `wait`.

    Processes that it leaves running when it ends by itself are not touched. Raises ProgramError if it cannot start.
    """

    def __init__(
        self,
        argv: Sequence[str],
        bounds: Bounds,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._bounds = bounds
        self._overdue = False
        self._stdout, self._stderr = _Stream(), _Stream()
        try:
            given = clean_environment() if environment is None else environment
            self._child = _launched(argv, bounds, {**given, **bounds.environment}, cwd)
        except LauncherFailed as error:
            raise ProgramError(
                f"The agent could not start {argv[0]}: {error.strerror}.", code="launcher_failed"
            ) from error
        except (OSError, ValueError) as error:
            raise ProgramError(
                f"{argv[0]} could not be started: {why_not_started(argv[0], error, cwd)}.", code="not_started"
            ) from error
        self._unsent = bytearray()
        self._stdin_ends = False
        try:
            self._watch()
        except BaseException as error:
            _abandon(self._child)
            if not isinstance(error, OSError):
                raise
            raise ProgramError(f"{argv[0]} could not be watched: {error.strerror}.", code="not_started") from error

    def _watch(self) -> None:
        self._stdin = _unblocked(self._child.stdin)
        self._selector = selectors.DefaultSelector()
        for source, stream in ((self._child.stdout, self._stdout), (self._child.stderr, self._stderr)):
            self._selector.register(_unblocked(source), selectors.EVENT_READ, stream)
        self._ending = os.pidfd_open(self._child.pid)
        self._selector.register(self._ending, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self._child.pid

    def send(self, data: bytes) -> None:
        """Queue data for its stdin, written while its output is read. A program that stops reading is not an error."""
        if data and not self._stdin.closed:
            self._unsent += data
            if self._stdin not in self._selector.get_map():
                self._selector.register(self._stdin, selectors.EVENT_WRITE)

    def close_stdin(self) -> None:
        """Close its stdin once all queued data is written."""
        self._stdin_ends = True
        if not self._unsent:
            self._close_stdin()

    def read_line(self) -> bytes | None:
        """Return the next line of its stdout, without the line feed; None if it ends, is stopped, or closes its stdout
        before it has printed any of it.

        A line without a line feed is what it has printed when it ends or closes its stdout, or OUTPUT_BYTES of it.
        """
        kept = self._stdout.kept
        self._pump(lambda: b"\n" in kept or self._stdout.truncated or self._stdout.closed)
        line, found, rest = bytes(kept).partition(b"\n")
        if self._overdue or not (line or found):  # output printed while it is being stopped is ignored
            return None
        kept[:] = rest
        return line

    def wait(self) -> Ended:
        """Wait until it ends; at the deadline, or when cancelled, send TERM to its group, and KILL after the grace."""
        self._pump(lambda: False)
        self._close()
        output = Output(self._stdout.text(), self._stderr.text(), self._stdout.truncated or self._stderr.truncated)
        return Ended(self._child.wait(), output, self._overdue)

    def end(self) -> Ended:
        """End it now, unless it has ended: send TERM to its group, and KILL after the grace."""
        if not self._has_ended():
            self._overdue = True
            self._end_group()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.returncode is None:
            self._end_group()
        self._close()

    def _pump(self, until: Callable[[], bool]) -> None:
        """Read its output until `until()` is true or the program ends; end it at the deadline or when cancelled."""
        while not until():
            left = self._bounds.deadline - self._bounds.clock.monotonic()
            if self._has_ended():
                self._read_available()
                return
            if left <= 0 or self._bounds.cancelled.is_set():
                self._overdue = True
                self._end_group()
            else:
                self._exchange(min(left, _POLL_INTERVAL_S))

    def _has_ended(self) -> bool:
        return self._child.poll() is not None

    def _exchange(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._stdin:
                self._write()
            elif key.data is not None:
                self._read(key)

    def _write(self) -> None:
        try:
            written = os.write(self._stdin.fileno(), self._unsent[:_BLOCK_BYTES])
        except BrokenPipeError:
            self._close_stdin()
            return
        del self._unsent[:written]
        if not self._unsent:
            self._selector.unregister(self._stdin)
            if self._stdin_ends:
                self._close_stdin()

    def _close_stdin(self) -> None:
        if not self._stdin.closed:
            if self._stdin in self._selector.get_map():
                self._selector.unregister(self._stdin)
            self._stdin.close()
        self._unsent.clear()

    def _read(self, key: selectors.SelectorKey) -> None:
        source: IO[bytes] = key.fileobj  # type: ignore[assignment]
        block = source.read(_BLOCK_BYTES)
        if block:
            key.data.add(block)
        elif block == b"":
            key.data.closed = True
            self._selector.unregister(source)

    def _read_available(self) -> None:
        # Not to the end of the stream: a process that the program left running may hold it open forever.
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._read(key)

    def _end_group(self) -> None:
        """Read its output between TERM and KILL too: a program blocked on a full pipe cannot end."""
        end_group(partial(signal_group, self.pid), self._ends_within, self._bounds.grace_s)
        self._child.wait()

    def _ends_within(self, seconds: float) -> bool:
        end = monotonic() + seconds
        while not self._has_ended() and (left := end - monotonic()) > 0:
            self._exchange(min(left, _POLL_INTERVAL_S))
        return self._has_ended()

    def _close(self) -> None:
        if self._ending < 0:
            return
        self._close_stdin()
        self._selector.close()
        os.close(self._ending)
        self._ending = -1
        for stream in (self._child.stdout, self._child.stderr):
            assert stream is not None
            stream.close()


def _launched(
    argv: Sequence[str], bounds: Bounds, environment: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    """Launch the program; what the machine does not have now is waited for, until the deadline. Raises as `launch`."""
    for wait_s in waits_for_resources():
        try:
            return launch(argv, bounds.confinement, environment=environment, cwd=cwd)
        except OSError as error:
            left = bounds.deadline - bounds.clock.monotonic()
            if not is_exhaustion(error) or left <= 0:
                raise
            _throttle.warn(_log, "program_not_started", argv[0], program=argv[0], reason=error.strerror)
            if bounds.cancelled.wait(min(wait_s, left)):
                raise
    raise AssertionError("the waits do not end")


def _abandon(child: subprocess.Popen[bytes]) -> None:
    """Kill a program that cannot be watched, with its group, and close its pipes."""
    signal_group(child.pid, signal.SIGKILL)
    with child:  # waits for it
        pass


def _unblocked(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    return pipe


def run_program(
    argv: Sequence[str],
    bounds: Bounds,
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """Run a program until it ends or is stopped; raises ProgramError only if it cannot be started."""
    with Program(argv, bounds, environment=environment, cwd=cwd) as program:
        program.send(stdin)
        program.close_stdin()
        return program.wait()
