"""The events that happen now, read from the ledger once for all clients that follow them."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import msgspec
import structlog
from starlette.concurrency import run_in_threadpool

from broker.api.pulse import Pulse, set_within
from broker.errors import LedgerError
from broker.fleet.events import EventScope, SeenEvent, events_after
from broker.ledger.ledger import Ledger

__all__ = [
    "Cut",
    "EventFeed",
]


_log = structlog.get_logger("acm.api")
_MOST_KEPT = 4096  # events in memory, some 5 MB; who is further behind reads the ledger
_MOST_PER_CUT = 256
_MOST_CUTS = 512
_LEAST_PAUSE_S = 0.25  # between two looks at the ledger: what happens meanwhile is read at once
_LOOK_S = 2.0  # also if a change went unnoticed
_RETRY_S = 2.0


@dataclass(frozen=True)
class Cut:
    """Some of the events for one scope, as text of `text/event-stream`, and the position after them."""

    frames: bytes
    position: int


@dataclass(frozen=True)
class _Entry:
    event: SeenEvent
    frame: bytes


class EventFeed:
    """The newest events in memory, as long as anyone follows them; `running` reads them in an event loop.

    A client has nothing here but its position, so that a slow one costs no memory. Clients with the same scope and
    position share one cut.
    """

    def __init__(self, ledger: Ledger, pulse: Pulse) -> None:
        self._ledger = ledger
        self._pulse = pulse
        self._ids: list[int] = []
        self._entries: list[_Entry] = []
        self._start = self._end = 0
        self._cuts: dict[tuple[EventScope, int], Cut] = {}
        self._followers = 0
        self._has_followers = asyncio.Event()
        self._grown = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read what happens, within the block."""
        reading = asyncio.create_task(self._run(), name="event-feed")
        try:
            yield
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Let the feed read what happens, within the block."""
        self._followers += 1
        self._has_followers.set()
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._has_followers.clear()

    @property
    def next(self) -> asyncio.Event:
        """What is set once there are more events, after this was read."""
        return self._grown

    def tick(self) -> None:
        """Let all that wait for more events look again."""
        before, self._grown = self._grown, asyncio.Event()
        before.set()

    async def after(self, scope: EventScope, position: int) -> Cut:
        """Return the next events for a scope after a position; none at the end. Raises LedgerError, and EventsPruned.

        It may be without events although its position is further on: those between are not for this scope.
        """
        if not self._end or not self._start <= position <= self._end:
            entries, end = await run_in_threadpool(self._read, position)
            return _cut(entries, scope, end)
        if (cut := self._cuts.get((scope, position))) is None:
            if len(self._cuts) >= _MOST_CUTS:
                self._cuts.clear()
            cut = self._cuts[scope, position] = self._cut_after(scope, position)
        return cut

    def _cut_after(self, scope: EventScope, position: int) -> Cut:
        first = bisect_right(self._ids, position)
        some = self._entries[first : first + _MOST_PER_CUT]
        return _cut(some, scope, some[-1].event.view.id if some else self._end)

    def _read(self, position: int) -> tuple[list[_Entry], int]:
        events, end = events_after(self._ledger, position)
        return [_entry(it) for it in events], end

    async def _run(self) -> None:
        while True:
            if not self._followers:
                self._clear()
                await self._has_followers.wait()
            changed = self._pulse.next
            try:
                has_grown = await self._read_on()
            except LedgerError as error:  # each client finds out by itself, since it is not in memory for it any more
                _log.warning("events_not_read", code=error.code, reason=str(error))
                self._clear()
                self.tick()
                await asyncio.sleep(_RETRY_S)
                continue
            if not has_grown:
                await set_within(changed, _LOOK_S)
                await asyncio.sleep(_LEAST_PAUSE_S)

    async def _read_on(self) -> bool:
        """Read the next events; return whether there were any. Raises LedgerError."""
        if not self._end:
            self._start = self._end = await run_in_threadpool(self._ledger.events.end)
        entries, end = await run_in_threadpool(self._read, self._end)
        if end == self._end:
            return False
        self._add(entries, end)
        self.tick()
        return True

    def _clear(self) -> None:
        self._ids, self._entries = [], []
        self._start = self._end = 0
        self._cuts.clear()

    def _add(self, entries: Sequence[_Entry], end: int) -> None:
        self._ids += [it.event.view.id for it in entries]
        self._entries += entries
        self._end = end
        self._cuts.clear()
        if (surplus := len(self._ids) - _MOST_KEPT) > 0:
            self._start = self._ids[surplus - 1]
            del self._ids[:surplus], self._entries[:surplus]


def _entry(event: SeenEvent) -> _Entry:
    view = event.view
    data = msgspec.json.encode(view)
    return _Entry(event, b"id: %d\nevent: %b\ndata: %b\n\n" % (view.id, view.type.encode(), data))


def _cut(entries: Sequence[_Entry], scope: EventScope, end: int) -> Cut:
    return Cut(b"".join(it.frame for it in entries if scope.includes(it.event)), end)
