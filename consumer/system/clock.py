"""The machine's clocks."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = [
    "Boot",
    "SystemClock",
    "seconds_since_boot",
]


def seconds_since_boot() -> float:
    """Return the seconds since this boot, including suspends (CLOCK_BOOTTIME), a clock that cannot be set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Boot:
    """One boot of the machine, and the seconds since it began, comparable between processes of the same boot."""

    id: str
    seconds: Callable[[], float] = seconds_since_boot


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return time.monotonic()
