"""A program on a terminal of its own, which shows what a user would see and takes what is typed."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Terminal"]


class Terminal:
    """Runs a program on a pseudo-terminal with so many columns; `shown` has all that it has written, controls too."""

    def __init__(
        self, argv: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None, columns: int = 80
    ) -> None:
        self._screen, program_end = pty.openpty()
        fcntl.ioctl(program_end, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self._process = subprocess.Popen(
            argv,
            cwd=directory,
            env={**inherited, "TERM": "xterm", **(environment or {})},
            preexec_fn=lambda: _log_in(program_end),
        )
        os.close(program_end)
        self.shown = ""

    def read_until(self, text: str) -> None:
        """Read until the program has written this text."""
        while text not in self.shown:
            assert self._read(), f"no {text!r} in {self.shown!r}"

    def type(self, text: str) -> None:
        """Type a text; `\\x03` is Ctrl-C."""
        os.write(self._screen, text.encode())

    def wait(self) -> int:
        """Read until the program has ended, and return its exit code."""
        while self._read():
            pass
        os.close(self._screen)
        return self._process.wait(30)

    def _read(self) -> bool:
        try:
            read = os.read(self._screen, 4096)
        except OSError:  # EIO: no process has the terminal any more
            return False
        self.shown += read.decode(errors="replace")
        return bool(read)


def _log_in(program_end: int) -> None:
    """Let Ctrl-C be a signal to the program; tests that run in the background of a shell ignore it."""
    os.login_tty(program_end)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
