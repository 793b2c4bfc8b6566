"""Signals in the first moments of a program, while it loads its modules. Imports next to nothing itself."""

import os
import signal
import sys

from broker.system.last_resort import end_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = [
    "IGNORED",
    "INTERRUPTED",
    "TERMINATED",
    "await_signals_early",
    "calls_service",
    "run_with_signals",
]


IGNORED = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGPOLL,
    signal.SIGPWR,
)
"""The signals that would end a program, and that a service has no use for."""

_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
# What a shell sets for `command &` and `nohup command`, and a command of ours keeps. A service handles these itself.
_OF_SHELLS = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def run_with_signals(name: str, services: tuple[str, ...], run: "Callable[[], object]") -> None:
    """Run a program whose modules `run` loads, such that no signal shows a traceback at its start or its end.

    Nor does a machine that has no memory, threads, files or disk for it, at any time.
    """
    await_signals_early(services)
    try:
        if calls_service(services):
            import hashlib  # noqa: F401  # it logs tracebacks when memory ends while it is imported, so it comes first

        run()
    except Exception as error:
        code = end_for(name, error)
        if code is None:
            raise
        os._exit(code)  # the interpreter's own end needs what is missing, and would show a traceback
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter would show a traceback while it ends


def await_signals_early(services: tuple[str, ...]) -> None:
    """Let INT and TERM end the process at once, with the exit code they have later, while it loads its modules.

    `services` are the commands that run until a signal ends them: for these, both are a success from the first moment
    on, and other signals are ignored. A process 1 without a handler would not even get a TERM (pid_namespaces(7)).

    What the starter has blocked or ignored, and execve(2) passes on, is undone: TERM would not arrive, neither here nor
    in a child, and without SIGCHLD every child seems to succeed.
    """
    is_service = calls_service(services)
    for number, code in ((signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)):
        signal.signal(number, _leave_with(0 if is_service else code))
    if is_service:
        for number in (signal.SIGHUP, *IGNORED):
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which children would inherit
    kept = _IGNORED_BY_PYTHON if is_service else _IGNORED_BY_PYTHON | _OF_SHELLS
    for number in signal.valid_signals() - kept:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def calls_service(services: tuple[str, ...]) -> bool:
    """Return whether the command line calls one of these commands."""
    return " ".join(sys.argv[1:3]).startswith(services)


def _leave_with(code: int) -> "Callable[[int, FrameType | None], None]":
    return lambda *_: os._exit(code)
