"""Growing, jittered waits between attempts; the only module that imports backoff."""

from collections.abc import Iterator

import backoff

__all__ = [
    "growing_waits",
]


_FIRST_WAIT_S = 2.0
_MAX_WAIT_S = 300.0


def growing_waits(longest_s: float = _MAX_WAIT_S) -> Iterator[float]:
    """Yield waits in seconds: 2, 4, 8 … 300, each shortened by up to half so that agents do not send in step."""
    waits = backoff.expo(base=2, factor=_FIRST_WAIT_S, max_value=longest_s)
    next(waits)
    for wait in waits:
        yield wait / 2 + backoff.full_jitter(wait / 2)
