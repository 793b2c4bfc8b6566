"""Telling seldom of what happens often: a flood of bad messages must not become a flood of log lines."""

from collections.abc import Callable

__all__ = [
    "LogThrottle",
]


_PAUSE_S = 60.0
_MAX_KEYS = 4096


class LogThrottle:
    """Lets the first of like things be told, and then one a minute. `monotonic` is a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told: dict[tuple[str, ...], tuple[float, int]] = {}

    def due(self, *key: str) -> int | None:
        """Return how many like this one were held back since the last that was told; None: hold this one back too."""
        now = self._monotonic()
        told_at, held = self._told.get(key, (None, 0))
        if told_at is not None and now - told_at < _PAUSE_S:
            self._told[key] = (told_at, held + 1)
            return None
        self._told.pop(key, None)  # what was told last stands last
        self._told[key] = (now, 0)
        if len(self._told) > _MAX_KEYS:
            del self._told[next(iter(self._told))]
        return held
