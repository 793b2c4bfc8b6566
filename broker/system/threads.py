"""Threads and processes that the machine may not have for a moment.

The limits of a user (RLIMIT_NPROC), of a control group (pids.max) and of a process (RLIMIT_NOFILE), and short memory,
end by themselves when something else ends. So what meets them is tried again.
"""

import errno
from collections.abc import Callable, Iterator
from threading import Thread
from time import monotonic

import structlog

from broker.system.log_throttle import LogThrottle
from broker.system.retry import growing_waits

__all__ = [
    "is_exhaustion",
    "is_missing_thread",
    "start_thread",
    "start_thread_within",
    "waits_for_resources",
]


_log = structlog.get_logger("acm.system")
_throttle = LogThrottle(monotonic)
_EXHAUSTED = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


def is_exhaustion(error: OSError) -> bool:
    """Whether an error of starting a program or opening a file says that the machine has none left now."""
    return error.errno in _EXHAUSTED


def is_missing_thread(error: RuntimeError) -> bool:
    """Whether an error of starting a thread says that the machine has none now."""
    return str(error) == "can't start new thread"


def waits_for_resources() -> Iterator[float]:
    """Return the waits in seconds between attempts to get what the machine does not have now: 0.1 … 5."""
    return growing_waits(_LONGEST_WAIT_S, first_s=_FIRST_WAIT_S)


def start_thread(target: Callable[[], object], name: str) -> Thread | None:
    """Start a daemon thread; None, and one log line a minute, if the machine has none now."""
    thread = Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _throttle.warn(_log, "no_thread", name, thread=name, reason=str(error))
        return None
    return thread


def start_thread_within(target: Callable[[], object], name: str, pause: Callable[[float], bool]) -> Thread | None:
    """Start a daemon thread as soon as the machine has one.

    `pause` waits for so many seconds and returns whether to give up; then this returns None.
    """
    for wait_s in waits_for_resources():
        thread = start_thread(target, name)
        if thread is not None or pause(wait_s):
            return thread
    raise AssertionError("the waits do not end")
