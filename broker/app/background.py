"""Continues a program in the background, in a session of its own, as daemon(3) does, and reports how its start went."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NoReturn

from broker.errors import BrokerError

__all__ = [
    "BackgroundError",
    "serve_in_background",
]


_STARTED = b"started"


class BackgroundError(BrokerError):
    """What was to continue in the background has ended."""

    code = "background_error"


def serve_in_background(serve: Callable[[Callable[[], None]], None], log: Path) -> int:
    """Call `serve` in a child process whose output goes to `log`; return its id once it has called what it is passed.

    Call this without threads. The earlier log is kept beside it, as NAME.1. The child never returns from here: it exits
    with 0, or with the error of `serve`, which is the text of BackgroundError here. If SystemExit is raised here by a
    signal meanwhile, the child is ended, too.
    """
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name(f"{log.name}.1"))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reading)
        _leave_terminal(output)
        with open(writing, "wb", buffering=0) as report:
            _serve(serve, report)
    os.close(writing)
    os.close(output)
    text = _report(reading, child)
    if text == _STARTED:
        return child
    os.waitpid(child, 0)
    raise BackgroundError(text.decode() or f"It was ended before it had started; {log} has its output.")


def _leave_terminal(output: int) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for descriptor, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)


def _serve(serve: Callable[[Callable[[], None]], None], report: BinaryIO) -> NoReturn:
    def started() -> None:
        report.write(_STARTED)
        report.close()

    try:
        serve(started)
    except BrokerError as error:
        if not report.closed:
            report.write(str(error).encode())
        raise
    raise SystemExit(0)


def _report(reading: int, child: int) -> bytes:
    """Return what the child reports; end it if this process is ended meanwhile."""
    with open(reading, "rb") as report:
        try:
            return report.read()
        except SystemExit:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
