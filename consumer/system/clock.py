"""The machine's clocks."""

from datetime import UTC, datetime
from time import monotonic

__all__ = [
    "SystemClock",
]


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return monotonic()
