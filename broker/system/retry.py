"""Waits between attempts: exponential backoff with jitter. The only module that imports backoff."""

from collections.abc import Iterator
from itertools import islice

import backoff

__all__ = [
    "LONGEST_WAIT_S",
    "growing_wait",
    "growing_waits",
]


LONGEST_WAIT_S = 300.0
_FIRST_WAIT_S = 2.0
_MAX_DOUBLINGS = 16


def growing_wait(attempt: int, *, first_s: float = _FIRST_WAIT_S, longest_s: float = LONGEST_WAIT_S) -> float:
    """Return the wait in seconds after an attempt, numbered from 0; the same policy as `growing_waits`."""
    attempt = min(attempt, _MAX_DOUBLINGS)
    return next(islice(growing_waits(longest_s, first_s=first_s), attempt, None))


def growing_waits(longest_s: float = LONGEST_WAIT_S, *, first_s: float = _FIRST_WAIT_S) -> Iterator[float]:
    """Yield waits in seconds: 2, 4, 8 … 300, each reduced at random by up to half, so that agents spread out."""
    waits = backoff.expo(base=2, factor=first_s, max_value=longest_s)
    next(waits)  # backoff's generators yield None once, to be primed
    for wait in waits:
        yield wait / 2 + backoff.full_jitter(wait / 2)
