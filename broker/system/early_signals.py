"""Signals in the first moments of a program, while it loads its modules. Imports next to nothing itself."""

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = [
    "INTERRUPTED",
    "TERMINATED",
    "await_signals_early",
    "calls_service",
]


INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def await_signals_early(services: tuple[str, ...]) -> None:
    """Let INT and TERM end the process at once, with the exit code they have later, while it loads its modules.

    `services` are the commands that run until a signal ends them: for these, both are a success from the first moment
    on, and HUP is ignored. A process 1 that has no handler yet would not even get a TERM (pid_namespaces(7)).
    """
    is_service = calls_service(services)
    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
        signal.signal(number, _leave_with(0 if is_service else code))
    if is_service:
        signal.signal(signal.SIGHUP, lambda *_: None)  # not SIG_IGN, which children would inherit


def calls_service(services: tuple[str, ...]) -> bool:
    """Return whether the command line calls one of these commands."""
    return " ".join(sys.argv[1:3]).startswith(services)


def _leave_with(code: int) -> "Callable[[int, FrameType | None], None]":
    return lambda *_: os._exit(code)
