"""Tells requests that wait when the ledger has changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from threading import Event, Thread

from broker.ledger.changes import Changes

__all__ = [
    "Pulse",
    "set_within",
]


_LOOK_S = 0.5


class Pulse:
    """One thread watches the ledger for all requests; `wait` is for the event loop in which it is `running`."""

    def __init__(self, changes: Callable[[], Changes]) -> None:
        self._changes = changes
        self._changed = asyncio.Event()
        self._ending = Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch the ledger within the block."""
        thread = Thread(target=self._run, args=(asyncio.get_running_loop(),), name="ledger-pulse", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.end()
            await asyncio.to_thread(thread.join)

    def end(self) -> None:
        """Let nothing wait any more: the server ends."""
        self._ending.set()
        self._tick()

    @property
    def next(self) -> asyncio.Event:
        """What is set once the ledger has changed, after this was read."""
        return self._changed

    @property
    def ends(self) -> bool:
        """Whether the server ends, and nothing should wait any more."""
        return self._ending.is_set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._changes() as changes:
            while not self._ending.is_set():
                if changes.wait(_LOOK_S):
                    loop.call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        before, self._changed = self._changed, asyncio.Event()
        before.set()


async def set_within(event: asyncio.Event, wait_s: float) -> bool:
    """Wait at most so many seconds until an event is set; return whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await event.wait()
    return event.is_set()
