"""The answer to a client that follows events: `text/event-stream` without an end, in a memory of fixed size.

HTML Living Standard, section 9.2: an `id` without `data` moves the client's position, and is not an event.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from broker.access.grants import Credential
from broker.api.event_feed import EventFeed
from broker.api.pulse import set_within
from broker.errors import BrokerError, LedgerError
from broker.fleet.events import EventSpan

__all__ = [
    "EventStreams",
    "StreamBounds",
    "TooManyStreams",
]


_EVENT_STREAM = "text/event-stream"
_LOOK_AT_CREDENTIALS_S = 1.0
_RETRY = b"retry: 2000\n"  # milliseconds
_HEADERS = [
    (b"content-type", _EVENT_STREAM.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # of nginx
]
_log = structlog.get_logger("acm.api")


class TooManyStreams(BrokerError):
    """As many clients follow events as the API serves at once."""

    code = "too_many_streams"


@dataclass(frozen=True)
class StreamBounds:
    """How many streams there may be, and for how many seconds one sends nothing, or its client takes nothing."""

    streams: int = 256
    heartbeat_s: float = 15.0
    send_within_s: float = 30.0


_BOUNDS = StreamBounds()


class EventStreams:
    """The streams of all clients. `valid_among` returns those of these credentials that are valid now."""

    def __init__(
        self,
        feed: EventFeed,
        valid_among: Callable[[Collection[Credential]], Collection[Credential]],
        bounds: StreamBounds = _BOUNDS,
    ) -> None:
        self._feed = feed
        self._valid_among = valid_among
        self._bounds = bounds
        self._open: set[_EventStream] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve streams within the block, and end each whose credential ends."""
        async with self._feed.running():
            looking = asyncio.create_task(self._look(), name="credentials-of-streams")
            try:
                yield
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking

    def answer(self, who: Credential, span: EventSpan) -> Response:
        """Return the stream of a span of events for a principal. Raises TooManyStreams."""
        if len(self._open) >= self._bounds.streams:
            raise TooManyStreams(f"{self._bounds.streams} clients follow events already: try again later.")
        return _EventStream(who, span, self._feed, self._bounds, self._opened)

    def end(self) -> None:
        """End all streams soon: the server ends."""
        self._end(self._open)

    @contextmanager
    def _opened(self, stream: "_EventStream") -> Iterator[None]:
        self._open.add(stream)
        try:
            with self._feed.followed():
                yield
        finally:
            self._open.remove(stream)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_CREDENTIALS_S)
            if not self._open:
                continue
            try:
                valid = await run_in_threadpool(self._valid_among, {it.who for it in self._open})
            except LedgerError as error:  # without the ledger there are no events either
                _log.warning("credentials_not_read", code=error.code, reason=str(error))
                continue
            self._end([it for it in self._open if it.who not in valid])

    def _end(self, streams: Collection["_EventStream"]) -> None:
        for stream in streams:
            stream.is_over = True
        if streams:
            self._feed.tick()


class _EventStream(Response):
    """One stream. It ends at the client's end, when `is_over`, and when the client takes nothing for too long."""

    def __init__(
        self,
        who: Credential,
        span: EventSpan,
        feed: EventFeed,
        bounds: StreamBounds,
        opened: Callable[["_EventStream"], AbstractContextManager[None]],
    ) -> None:
        super().__init__(media_type=_EVENT_STREAM)
        self.who = who
        self._span = span
        self.is_over = False
        self._feed = feed
        self._bounds = bounds
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until an end."""
        with self._opened(self):
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            sending, gone = asyncio.create_task(self._send_all(send)), asyncio.create_task(_until_gone(receive))
            try:
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, gone):
                    task.cancel()
                await asyncio.gather(sending, gone, return_exceptions=True)
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        try:
            async for frames in self._frames():
                async with asyncio.timeout(self._bounds.send_within_s):
                    await send({"type": "http.response.body", "body": frames, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            _log.info("event_stream_ended", reason="the client takes nothing", **self._facts)
        except LedgerError as error:  # the client asks again, and gets this as a problem
            _log.info("event_stream_ended", code=error.code, reason=str(error), **self._facts)

    @property
    def _facts(self) -> dict[str, str]:
        return {"principal": self.who.principal.name, "credential": self.who.id}

    async def _frames(self) -> AsyncIterator[bytes]:
        clock, position, end = asyncio.get_running_loop().time, self._span.start, self._span.end
        yield _RETRY + _position_frame(position)
        sent_at = clock()
        while not self.is_over:
            grown, before = self._feed.next, position
            cut = await self._feed.after(self._span.scope, position)
            position = cut.position
            if cut.frames:
                yield cut.frames
                sent_at = clock()
            if end is not None and position >= end:
                return
            if position == before:
                await set_within(grown, sent_at + self._bounds.heartbeat_s - clock())
            if clock() >= sent_at + self._bounds.heartbeat_s:
                yield _position_frame(position)
                sent_at = clock()


def _position_frame(position: int) -> bytes:
    """Return a comment that shows that the connection lives, and the client's position, without an event."""
    return b": \nid: %d\n\n" % position


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
