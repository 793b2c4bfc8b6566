"""Reads a stream of events over reconnections, without any input or output: both clients feed it what they receive."""

from collections.abc import Iterator
from datetime import datetime
from typing import TypeVar

import httpx
import msgspec

from broker.client import calls
from broker.fleet.models import EventFilter, EventView
from broker.ledger.event_types import EventType
from broker.system.retry import growing_wait

__all__ = [
    "SILENCE_S",
    "EventReader",
]


_Shape = TypeVar("_Shape")
_KNOWN_TYPES = frozenset(it.encode() for it in EventType)
SILENCE_S = 60.0  # of an API that sends something every 15 s
_LONGEST_PAUSE_S = 30.0
_MOST_BYTES = 1 << 20  # of one event


class EventReader:
    """What is known of a stream: its request, which begins after the last event, and the pause before the next one."""

    def __init__(self, which: EventFilter, after: int | None, since: datetime | None, *, follow: bool) -> None:
        self._which = which
        self._after, self._since = after, since
        self._follow = follow
        self._rest = b""
        self._fields: dict[bytes, bytes] = {}
        self._failures = 0
        self._has_begun = False

    def call(self) -> calls.Call[None]:
        """Return the request for the events that are still missing."""
        self._rest, self._fields = b"", {}
        return calls.for_events(self._which, self._after, self._since, follow=self._follow)

    @staticmethod
    def is_in(response: httpx.Response) -> bool:
        """Whether a response has the stream."""
        return response.is_success and response.headers.get("Content-Type", "").startswith("text/event-stream")

    def refuse(self, call: calls.Call[None], response: httpx.Response) -> None:
        """Raise ApiProblem or ApiUnreachable for another answer, which was read, unless it is to be tried again."""
        if not (calls.is_to_repeat(response) and self._may_try_again):
            calls.answer_in(call, response)

    def events_in(self, data: bytes) -> Iterator[EventView]:
        """Yield the events that end in these bytes, which follow those before. Raises ApiUnreachable.

        Those of types that only a later version of the API knows are left out.
        """
        self._failures, self._has_begun = 0, True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_BYTES:
            raise calls.ApiUnreachable("The API has sent an event without an end: is another program there?")
        for line in lines:
            if line:
                name, _, value = line.partition(b": ")
                self._fields[name] = value
                continue
            fields, self._fields = self._fields, {}
            if b"data" in fields and _is_known(fields.get(b"event")):
                yield _decoded(fields[b"data"], EventView)
            if b"id" in fields:
                self._after, self._since = _decoded(fields[b"id"], int), None

    @property
    def is_complete(self) -> bool:
        """Whether a stream that has ended without an error had all that was asked for."""
        return not self._follow

    def pause(self, url: str, error: Exception | None) -> float:
        """Return how many seconds to wait before the next request. Raises ApiUnreachable after some without an answer.

        Once it had a stream it tries again without an end, up to every 30 s.
        """
        if error is not None and not self._may_try_again:
            raise calls.unreachable(url, error) from error
        self._failures += 1
        return growing_wait(self._failures - 1, first_s=calls.FIRST_WAIT_S, longest_s=_LONGEST_PAUSE_S)

    @property
    def _may_try_again(self) -> bool:
        return self._has_begun or self._failures < calls.ATTEMPTS - 1


def _decoded(data: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.MsgspecError as error:
        raise calls.ApiUnreachable(f"The API has sent an event that cannot be read: {error}.") from error


def _is_known(event_type: bytes | None) -> bool:
    return event_type is None or event_type in _KNOWN_TYPES
