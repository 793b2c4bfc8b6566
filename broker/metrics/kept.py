"""Metrics that cost something to read: kept for a while, so that no number of scrapes can cost much."""

import threading
from collections.abc import Callable, Iterable, Sequence

from broker.metrics.values import Family, Source

__all__ = [
    "kept",
]


_FRESH_S = 5.0
_LEAST_PAUSE = 20.0  # times as long as the reading took: at most 5 % of the time is spent on it


def kept(source: Source, monotonic: Callable[[], float]) -> Source:
    """Return a source that reads `source` at most every five seconds, for 5 % of the time, by one thread at a time.

    In between, and while another thread reads, it returns what was read last.
    """
    reading = threading.Lock()
    last: Sequence[Family] = ()
    fresh_until = monotonic()

    def families() -> Iterable[Family]:
        nonlocal last, fresh_until
        if monotonic() >= fresh_until and reading.acquire(blocking=not last):
            try:
                began = monotonic()
                if began >= fresh_until:
                    last = tuple(source())
                    took = monotonic() - began
                    fresh_until = monotonic() + max(_FRESH_S, _LEAST_PAUSE * took)
            finally:
                reading.release()
        return last

    return families
