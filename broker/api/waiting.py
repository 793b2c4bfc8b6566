"""Reads that wait until what they read is completed."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Annotated, TypeVar

from fastapi import Query
from starlette.concurrency import run_in_threadpool

from broker.api.pulse import Pulse, set_within

__all__ = [
    "LONGEST_WAIT_S",
    "WaitSeconds",
    "when_done",
]


_Item = TypeVar("_Item")
LONGEST_WAIT_S = 60.0
_LEAST_PAUSE_S = 0.05  # between two looks, also if much else changes in the ledger and many wait
WaitSeconds = Annotated[
    float, Query(ge=0, le=LONGEST_WAIT_S, description="Answer once it is completed, or after so many seconds.")
]


async def when_done(pulse: Pulse, read: Callable[[], _Item], is_done: Callable[[_Item], bool], wait_s: float) -> _Item:
    """Return what `read` returns once that is done, or at the end of the wait."""
    end = monotonic() + wait_s
    while True:
        changed = pulse.next
        item = await run_in_threadpool(read)
        left_s = end - monotonic()
        if is_done(item) or left_s <= 0 or pulse.ends:
            return item
        if not await set_within(changed, left_s):
            return item
        await asyncio.sleep(_LEAST_PAUSE_S)
