"""Runs programs of ours as children: started in order, each ready before the next, ended together.

No child outlives the process: each gets TERM when it has ended, also by kill -9. None is restarted: what ends by itself
has a reason that a user must know of, and a service manager restarts the whole.
"""

import contextlib
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from broker.errors import BrokerError
from broker.system.ends_with_parent import ending_with_this_process
from broker.system.service_manager import HEALTH_FILE, VARIABLES, ServiceManager
from broker.text import printable_line

__all__ = [
    "SupervisedProgram",
    "Supervisor",
    "SupervisorError",
]


_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 10.0
_READY_INTERVAL_S = 0.05
_TURN_S = 5.0
_LAST_LINES = 10
_LONGEST_LINE_BYTES = 1 << 16
_READ_BYTES = 1 << 16


class SupervisorError(BrokerError):
    """A program that others depend on has ended, or did not start; so all were ended."""

    code = "supervisor_error"


@dataclass(frozen=True)
class SupervisedProgram:
    """A program to run: its name in the log, its arguments (the first is a path), and where it reports that it works.

    It touches `health`, the file in ACM_HEALTH_FILE, while it works (broker.system.service_manager). A program without
    such a file is a step: it must end with exit code 0 before the next one starts. `text`, which is asked for when it
    starts, is its standard input.
    """

    name: str
    argv: tuple[str, ...]
    health: Path | None = None
    text: Callable[[], str] | None = None


class Supervisor:
    """Runs the programs until one ends, or `stop` is called. Driven by one thread, in which `run` was called.

    Each line that a program writes is shown by `show`, after the program's name. The programs inherit the descriptor
    `inherited`. Settings of ours (ACM_…) in the environment do not reach them.
    """

    def __init__(
        self,
        programs: Sequence[SupervisedProgram],
        *,
        inherited: int,
        show: Callable[[str], None],
        manager: ServiceManager,
        start_timeout_s: float = _START_TIMEOUT_S,
    ) -> None:
        self._programs = programs
        self._inherited = inherited
        self._show = show
        self._manager = manager
        self._start_timeout_s = start_timeout_s
        self._width = max(len(program.name) for program in programs)
        self._children: list[_Child] = []
        self._is_ready = self._is_stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, self._note_wake)

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler."""
        self._is_stopping = True
        os.eventfd_write(self._wake, 1)

    def reload(self) -> None:
        """Send HUP to all programs, which read their files again; may be called from a signal handler."""
        for child in self._children:
            child.send(signal.SIGHUP)

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start the programs, call `on_ready` once all work, and return when `stop` was called and all have ended.

        Raises SupervisorError if one ends by itself, or does not work within a minute; all have ended then, too.
        """
        try:
            for program in self._programs:
                self._start(program)
            if not self._is_stopping:
                self._is_ready = True
                on_ready()
            while not self._is_stopping:
                self._turn(_TURN_S)
        finally:
            self._manager.stopping()
            self._end_all()

    def _start(self, program: SupervisedProgram) -> None:
        if self._is_stopping:
            return
        child = _Child(program, self._inherited, self._selector, self._print)
        self._children.append(child)
        deadline = monotonic() + self._start_timeout_s
        while not (child.is_ready or self._is_stopping):
            self._turn(_READY_INTERVAL_S)
            if monotonic() >= deadline:
                raise SupervisorError(
                    f"The {program.name} does not work {self._start_timeout_s:g} s after its start, so all were ended. "
                    f"Its last lines:{child.last_lines}",
                    code="program_not_ready",
                )

    def _turn(self, timeout_s: float) -> None:
        """Show what the programs write, for a while; raises SupervisorError if one of them has ended."""
        self._manager.turn(ready=self._is_ready, status="All programs work." if self._is_ready else "Programs start.")
        self._handle_events(timeout_s)
        ended = next((child for child in self._children if child.has_ended and not child.is_done), None)
        if ended is not None and not self._is_stopping:
            raise SupervisorError(
                f"The {ended.program.name} {ended.how_it_ended}, so all were ended. Its last lines:{ended.last_lines}",
                code="program_ended",
            )

    def _handle_events(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def _end_all(self) -> None:
        """End them in the reverse order: what depends on another ends before it."""
        deadline = monotonic() + _END_TIMEOUT_S
        for child in reversed(self._children):
            child.send(signal.SIGTERM)
            while not child.is_gone and (left := deadline - monotonic()) > 0:
                self._handle_events(left)
            child.send(signal.SIGKILL)
        for child in self._children:
            child.close()
        self._selector.close()
        os.close(self._wake)

    def _print(self, name: str, line: str) -> None:
        self._show(f"{name:<{self._width}} | {line}")

    def _note_wake(self) -> None:
        os.eventfd_read(self._wake)


class _Child:
    """One process, in a process group of its own: Ctrl-C is for the supervisor, which ends all in order."""

    def __init__(
        self,
        program: SupervisedProgram,
        inherited: int,
        selector: selectors.BaseSelector,
        show: Callable[[str, str], None],
    ) -> None:
        self.program = program
        self._selector = selector
        self._show = show
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._begun_line = b""
        ours = {name for name in os.environ if name.startswith("ACM_")} | set(VARIABLES)
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        if program.health is not None:
            program.health.unlink(missing_ok=True)
            environment[HEALTH_FILE] = str(program.health)
        self._process = subprocess.Popen(
            ending_with_this_process(*program.argv),
            stdin=subprocess.DEVNULL if program.text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[inherited],
            process_group=0,
        )
        if self._process.stdin is not None and program.text is not None:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as given:
                given.write(program.text().encode())
        assert self._process.stdout is not None
        self._output: int | None = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._pidfd = os.pidfd_open(self._process.pid)
        selector.register(self._output, selectors.EVENT_READ, self._read)
        selector.register(self._pidfd, selectors.EVENT_READ, self._note_end)

    @property
    def is_ready(self) -> bool:
        """Whether it works, or is done."""
        health = self.program.health
        return self.is_done if health is None else health.exists()

    @property
    def is_done(self) -> bool:
        """Whether it is a step that has succeeded."""
        return self.program.health is None and self._process.returncode == 0

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has ended."""
        return self._process.returncode is not None

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, and each process that it started and that has its output, such as Mosquitto."""
        return self.has_ended and self._output is None

    @property
    def how_it_ended(self) -> str:
        """How it ended, as the rest of a sentence."""
        status = self._process.returncode
        if status < 0:
            return f"was ended by signal {-status} ({signal.strsignal(-status)})"
        return f"ended with exit code {status}"

    @property
    def last_lines(self) -> str:
        """The last lines that it wrote, each on a line of its own after a line feed."""
        return "".join(f"\n  {line}" for line in self._last) or " none."

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Release it; call it when it was ended."""
        self._process.wait()
        os.close(self._pidfd)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _note_end(self) -> None:
        self._process.wait()
        self._selector.unregister(self._pidfd)
        self._read()

    def _read(self) -> None:
        """Show the complete lines of what was written; what follows the last one is shown at the end."""
        while self._output is not None:
            with contextlib.suppress(BlockingIOError):
                read = os.read(self._output, _READ_BYTES)
                *lines, self._begun_line = (self._begun_line + read).split(b"\n")
                if self._begun_line and (not read or len(self._begun_line) > _LONGEST_LINE_BYTES):
                    lines, self._begun_line = [*lines, self._begun_line], b""
                for line in lines:
                    self._show_line(line)
                if read:
                    continue
                self._selector.unregister(self._output)
                self._output = None
            return

    def _show_line(self, line: bytes) -> None:
        text = printable_line(line.decode(errors="replace").rstrip())
        self._last.append(text)
        self._show(self.program.name, text)
