"""Events as both clients yield them, over connections that end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.app.factories import open_database
from broker.client.async_client import AsyncClient
from broker.client.calls import ApiProblem, ApiUnreachable
from broker.client.client import Client
from broker.contract.messages import Origin
from broker.fleet.models import EventFilter, EventView, Role
from broker.fleet.on_ledger import LedgerFleet
from broker.ledger.event_types import EventType
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.http_server import serving_http

KINDS = ("sync", "async")


def view(number: int) -> EventView:
    at = TurnedClock().now()
    return EventView(number, at, EventType.AGENT_ONLINE, f"web-\u2028{number}", None, None, None, None, None, ())


def frame(number: int) -> bytes:
    return b"id: %d\nevent: agent_online\ndata: %b\n\n" % (number, msgspec.json.encode(view(number)))


def events_of(kind: str, url: str, token: str = "x", count: int | None = None, **named: Any) -> list[EventView]:
    """Return the events that a client yields, at most so many."""
    if kind == "sync":
        with Client(url, token, sleep=lambda _: None) as client:
            return taken(client.events(**named), count)

    async def pause(_: float) -> None:
        pass

    async def run() -> list[EventView]:
        async with AsyncClient(url, token, sleep=pause) as client:
            return await taken_from(client.events(**named), count)

    return asyncio.run(run())


def taken(events: Iterator[EventView], count: int | None) -> list[EventView]:
    found = []
    for event in events:
        found.append(event)
        if len(found) == count:
            break
    return found


async def taken_from(events: AsyncIterator[EventView], count: int | None) -> list[EventView]:
    found = []
    async for event in events:
        found.append(event)
        if len(found) == count:
            break
    return found


@contextmanager
def scripted(*bodies: bytes) -> Iterator[tuple[str, list[str]]]:
    """Answer each request with the next body; only the last one is not cut off. Yield the URL, and what was asked."""
    left, asked = list(bodies), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            body = left.pop(0)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
            if not left:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

    with serving_http(Handler) as url:
        yield url, asked


@pytest.mark.parametrize("kind", KINDS)
def test_connection_that_is_cut_off_anywhere_loses_and_repeats_nothing(kind: str) -> None:
    position = b": \nid: 7\n\n"
    first, second = frame(8) + frame(9) + frame(10)[:-9], frame(10)[:11]
    with scripted(position + first, position[:5], second, frame(10) + frame(11)) as (url, asked):
        assert events_of(kind, url, since=TurnedClock().now()) == [view(number) for number in (8, 9, 10, 11)]
    assert "since=2026" in asked[0]
    assert [path.partition("after=")[2].partition("&")[0] for path in asked] == ["", "9", "9", "9"]


@pytest.mark.parametrize("kind", KINDS)
def test_event_of_a_later_version_is_left_out_and_moves_the_position(kind: str) -> None:
    later = frame(9).replace(b"agent_online", b"moon_landed")
    assert later != frame(9)
    with scripted(frame(8) + later, frame(10)) as (url, asked):
        assert events_of(kind, url, since=TurnedClock().now()) == [view(number) for number in (8, 10)]
    assert [path.partition("after=")[2].partition("&")[0] for path in asked] == ["", "9"]


@pytest.fixture
def api(tmp_path: Path, clock: TurnedClock) -> Iterator[RunningApi]:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock) as running:
            yield running


def token_of(api: RunningApi) -> str:
    return api.as_(Role.VIEWER)["Authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("kind", KINDS)
def test_client_yields_what_the_fleet_on_the_ledger_yields(api: RunningApi, kind: str) -> None:
    on_ledger = LedgerFleet(api.ledger, Origin("alice", "test"))
    for which in (EventFilter(), EventFilter(agent="web-01"), EventFilter(EventType.AGENT_ONLINE)):
        expected = list(on_ledger.events(which))
        assert expected
        assert events_of(kind, api.url, token_of(api), which=which) == expected
        assert events_of(kind, api.url, token_of(api), which=which, after=expected[0].id) == expected[1:]
        assert events_of(kind, api.url, token_of(api), len(expected), which=which, after=0, follow=True) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_refusal_is_an_error_with_its_code(api: RunningApi, kind: str) -> None:
    for named, code in (({"after": 1}, "events_pruned"), ({"which": EventFilter(agent="mail-01")}, "unknown_agent")):
        with raises_code(ApiProblem, code):
            events_of(kind, api.url, token_of(api), follow=True, **named)


@pytest.mark.parametrize("kind", KINDS)
def test_api_that_was_never_there_is_an_error(api: RunningApi, kind: str) -> None:
    with scripted() as (url, _):
        pass
    with pytest.raises(ApiUnreachable):
        events_of(kind, url, follow=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"id: x\n\n", b"data: {}\n\n", b"<html>" * 300_000])
def test_stream_that_is_not_of_the_api_is_an_error(kind: str, body: bytes) -> None:
    with scripted(body) as (url, _), pytest.raises(ApiUnreachable):
        events_of(kind, url)
