"""Rate-limited logging: a flood of events must not become a flood of log lines."""

import threading
from collections.abc import Callable
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

__all__ = [
    "LogLimit",
    "LogThrottle",
]


_INTERVAL_S = 60.0
_MAX_KEYS = 4096
_LINES_OF_A_KIND = 10
_LINES_OF_AN_EVENT = 60
_LINES = 600
_KEY_NAMES = ("agent", "address", "code", "path", "logger")


class LogThrottle:
    """Allows the first `lines` log lines of a kind in a minute. `monotonic` is a clock in seconds.

    Remembers at most 4096 kinds; beyond that, the ones logged longest ago are forgotten.
    """

    def __init__(self, monotonic: Callable[[], float], *, lines: int = 1) -> None:
        self._monotonic = monotonic
        self._lines = lines
        self._logged: dict[tuple[str, ...], tuple[float, int]] = {}

    def warn(self, log: Any, event: str, /, *key: str, **facts: Any) -> None:
        """Log a warning with these facts if `allow(event, *key)` does, and how many were `suppressed` before it."""
        suppressed = self.allow(event, *key)
        if suppressed is not None:
            log.warning(event, **facts, suppressed=suppressed)

    def allow(self, *key: str) -> int | None:
        """Return how many lines of this kind were suppressed since the last one logged; None: suppress this one."""
        now = self._monotonic()
        began, count = self._logged.get(key, (None, 0))
        if began is not None and now - began < _INTERVAL_S:
            self._logged[key] = (began, count + 1)
            return 0 if count < self._lines else None
        self._logged.pop(key, None)  # moves the kind to the end
        self._logged[key] = (now, 1)
        if len(self._logged) > _MAX_KEYS:
            del self._logged[next(iter(self._logged))]
        return max(0, count - self._lines)


class LogLimit:
    """A processor of structlog: no event can fill a disk with its lines, without any care where it is logged.

    In a minute, the first 10 lines of an event are kept for each agent, address, code and path, the first 60 of an
    event, and the first 600 of the process. The first line that is kept again has the number of `suppressed` ones.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._lock = threading.RLock()  # a signal handler may log as well
        self._limits = [LogThrottle(monotonic, lines=lines) for lines in (_LINES_OF_A_KIND, _LINES_OF_AN_EVENT, _LINES)]

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Return the event, or raise DropEvent."""
        name = str(event.get("event"))
        kinds = ((name, *(str(event.get(key)) for key in _KEY_NAMES)), (name,), ())
        suppressed = 0
        with self._lock:
            for limit, kind in zip(self._limits, kinds, strict=True):
                omitted = limit.allow(*kind)
                if omitted is None:
                    raise structlog.DropEvent
                suppressed += omitted
        if suppressed:
            named = event.get("suppressed")
            event["suppressed"] = suppressed + (named if isinstance(named, int) else 0)
        return event
