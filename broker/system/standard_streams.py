"""The standard streams of a program, such that neither a closed one nor a failing one ends it."""

import errno
import io
import os
import select
import sys
from typing import TextIO

from broker.errors import CodedError

__all__ = [
    "OutputError",
    "discard_output",
    "secure_standard_streams",
]


_STDOUT, _STDERR = 1, 2
_PIPE_BUF = 4096  # what a pipe that is writable takes without blocking (pipe(7))
_PATIENCE_MS = 100
_REPLACE = "backslashreplace"


class OutputError(CodedError):
    """The standard output cannot be written: its disk is full, or its reader has ended."""

    code = "output_error"

    def __init__(self, error: OSError) -> None:
        super().__init__(f"The output cannot be written: {error.strerror}. What it reports may be done anyway.")
        self.is_unread = error.errno == errno.EPIPE


def secure_standard_streams() -> None:
    """Open /dev/null in place of closed descriptors 0 to 2, and make stdout and stderr fit for a program of ours.

    Otherwise the next files that are opened would be the standard streams, and Python's own would be None. Both streams
    replace what their encoding lacks. Writing to stdout raises OutputError and never another error; writing to stderr
    raises nothing and does not wait for a reader: what it does not take is lost. Call it once, before any thread.
    """
    for descriptor in (0, _STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor, which is this one
            os.set_inheritable(opened, True)  # a child without standard streams has the same trouble
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:  # and no stream that a test or an embedding program has put there
        output = io.BufferedWriter(_Output(_STDOUT, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(output, _encoding(sys.stdout), _REPLACE, line_buffering=output.isatty())
    if sys.stderr is sys.__stderr__:
        diagnostics = _Diagnostics(_STDERR, "w", closefd=False)
        sys.stderr = io.TextIOWrapper(diagnostics, _encoding(sys.stderr), _REPLACE, write_through=True)


def _encoding(stream: TextIO | None) -> str:
    return "utf-8" if stream is None else stream.encoding


def discard_output() -> None:
    """Discard what stdout has not written, and all that follows: the interpreter would try it again when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _STDOUT)
    os.close(null)


class _Output(io.FileIO):
    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise OutputError(error) from error


class _Diagnostics(io.FileIO):
    """A descriptor for messages that are worth less than the program: writing never fails and never blocks for long."""

    def __init__(self, descriptor: int, mode: str, *, closefd: bool) -> None:
        super().__init__(descriptor, mode, closefd=closefd)
        self._is_stuck = False
        self._in_line = False

    def write(self, data: object) -> int:
        text = bytes(data)  # type: ignore[call-overload]
        try:
            self._write_all(b"\n" + text if self._is_stuck and self._in_line else text)
        except (OSError, ValueError):
            self._is_stuck = True
        return len(text)

    def _write_all(self, left: bytes) -> None:
        while left:
            if not self._takes_more():
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            written = super().write(left[:_PIPE_BUF])
            if not written:  # None: the descriptor is non-blocking
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._in_line = left[written - 1 : written] != b"\n"
            left = left[written:]
        self._is_stuck = False

    def _takes_more(self) -> bool:
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLOUT)
        return bool(waiting.poll(0 if self._is_stuck else _PATIENCE_MS))
