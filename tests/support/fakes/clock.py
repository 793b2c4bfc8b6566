"""A clock that the test sets."""

from datetime import UTC, datetime, timedelta


class TurnedClock:
    """Starts at 2026-01-01 00:00 UTC and moves only by `turn`; `set_wall` sets the wall clock alone."""

    def __init__(self) -> None:
        self._seconds = 1000.0
        self._ahead = 0.0

    def set_wall(self, ahead_s: float) -> None:
        self._ahead = ahead_s

    def turn(self, seconds: float) -> None:
        self._seconds += seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._seconds + self._ahead)

    def monotonic(self) -> float:
        return self._seconds
