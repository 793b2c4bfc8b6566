"""Rate-limited logging: a flood of bad messages must not become a flood of log lines."""

from collections.abc import Callable
from typing import Any

__all__ = [
    "LogThrottle",
]


_INTERVAL_S = 60.0
_MAX_KEYS = 4096


class LogThrottle:
    """Allows the first log line of a kind, and then one a minute. `monotonic` is a clock in seconds.

    Remembers at most 4096 kinds; beyond that, the ones logged longest ago are forgotten.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._logged: dict[tuple[str, ...], tuple[float, int]] = {}

    def warn(self, log: Any, event: str, /, *key: str, **facts: Any) -> None:
        """Log a warning with these facts if `allow(event, *key)` does, and how many were `suppressed` before it."""
        suppressed = self.allow(event, *key)
        if suppressed is not None:
            log.warning(event, **facts, suppressed=suppressed)

    def allow(self, *key: str) -> int | None:
        """Return how many lines of this kind were suppressed since the last one logged; None: suppress this one."""
        now = self._monotonic()
        logged_at, suppressed = self._logged.get(key, (None, 0))
        if logged_at is not None and now - logged_at < _INTERVAL_S:
            self._logged[key] = (logged_at, suppressed + 1)
            return None
        self._logged.pop(key, None)  # moves the kind to the end
        self._logged[key] = (now, 0)
        if len(self._logged) > _MAX_KEYS:
            del self._logged[next(iter(self._logged))]
        return suppressed
