"""GET /v1/events: each event once and in order, over reconnections, for those who may see it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from broker.access.grants import Credential
from broker.api.event_feed import EventFeed
from broker.api.event_stream import EventStreams, StreamBounds, TooManyStreams
from broker.api.pulse import Pulse
from broker.app.factories import open_database
from broker.contract.messages import Origin
from broker.fleet.events import EventScope, EventSpan
from broker.fleet.models import EventFilter, Principal, Role
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from tests.support.api import RunningApi, running_api, with_agents
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback
from tests.support.waiting import wait_for

REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))
WHO = Credential(Principal("alice", Role.VIEWER), "1")


@pytest.fixture
def ledger(tmp_path: Path, clock: TurnedClock) -> Iterator[Ledger]:
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        yield with_agents(Ledger(database, now=clock.now))


@pytest.fixture
def api(ledger: Ledger, clock: TurnedClock) -> Iterator[RunningApi]:
    with running_api(ledger, clock) as running:
        yield running


class Stream:
    """An open stream, from which events are read one after the other; `position` is what a browser would remember."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        self._lines = response.iter_lines()
        self.position = 0
        assert self._frame() == {"retry": "2000"}

    def next(self) -> dict[str, Any] | None:
        """Return the next event; None at the end of the stream."""
        while frame := self._frame():
            if "data" in frame:
                view: dict[str, Any] = json.loads(frame["data"])
                assert (str(view["id"]), view["type"]) == (frame["id"], frame["event"])
                return view
        return None

    def _frame(self) -> dict[str, str]:
        frame = {}
        for line in self._lines:
            if not line:
                self.position = int(frame.pop("id")) if "data" not in frame else int(frame["id"])
                return frame or self._frame()
            name, _, value = line.partition(": ")
            if name:
                frame[name] = value
        return frame

    def rest(self) -> list[dict[str, Any]]:
        found = []
        while (view := self.next()) is not None:
            found.append(view)
        return found


def opened(api: RunningApi, headers: dict[str, str] | None = None, **query: Any) -> Any:
    return api.http.stream("GET", "/v1/events", params=query, headers=headers or api.as_(Role.VIEWER))


def kept(api: RunningApi, headers: dict[str, str] | None = None, **query: Any) -> list[dict[str, Any]]:
    with opened(api, headers, follow="false", **query) as response:
        return Stream(response).rest()


def test_stream_reports_what_happens_from_now_on(api: RunningApi) -> None:
    with opened(api) as response:
        stream = Stream(response)
        command = api.ledger.add_command("web-01", REQUEST)
        created = stream.next()
        api.ledger.claim_due(1)
        record_feedback(api.ledger, "web-01", [result(command.id)])
        sent, completed = stream.next(), stream.next()
    assert created
    assert sent
    assert completed
    assert [it["type"] for it in (created, sent, completed)] == ["command_created", "command_sent", "command_completed"]
    assert completed == {
        "id": created["id"] + 2,
        "at": "2026-01-01T00:16:40Z",
        "type": "command_completed",
        "agent": "web-01",
        "command_id": command.id,
        "command_type": "restart-agent",
        "operation_id": None,
        "outcome": "success",
        "code": None,
        "changed": [],
        "group": None,
    }


def test_reconnection_loses_and_repeats_nothing(api: RunningApi) -> None:
    seen = []
    position = api.ledger.events.end()
    for _ in range(3):
        for _ in range(2):
            api.ledger.add_command("web-01", REQUEST)
        with opened(api, api.as_(Role.VIEWER) | {"Last-Event-ID": str(position)}, since="2000-01-01") as response:
            stream = Stream(response)
            seen.append(stream.next())
            api.ledger.add_command("web-01", REQUEST)
            seen += [stream.next(), stream.next()]
            position = stream.position
    assert seen == kept(api, agent="web-01", type="command_created")
    assert len(seen) == 9


def test_stream_without_following_ends_with_the_newest_event(api: RunningApi, clock: TurnedClock) -> None:
    before = len(kept(api))
    clock.turn(60.0)
    operation = api.ledger.add_operation([f"web-{number:03d}" for number in range(1200)], "all", REQUEST)
    events = kept(api)
    assert len(events) == before + 1200
    assert kept(api, since=clock.now().isoformat()) == events[before:]
    assert kept(api, after=events[-2]["id"]) == events[-1:]
    assert kept(api, operation=operation.id, agent="web-01") == []
    created = kept(api, operation=operation.id, type="command_created")
    assert [it["agent"] for it in created] == [f"web-{number:03d}" for number in range(1200)]


def test_filter_that_leaves_nothing_moves_the_position(api: RunningApi) -> None:
    with opened(api, agent="web-02") as response:
        stream = Stream(response)
        api.ledger.add_command("web-01", REQUEST)
        api.ledger.add_command("web-02", REQUEST)
        found = stream.next()
    assert found
    assert found["agent"] == "web-02"
    with opened(api, agent="web-02", after=0, follow="false") as response:
        stream = Stream(response)
        stream.rest()
        assert stream.position == api.ledger.events.end()


def test_principal_with_groups_sees_only_their_agents(api: RunningApi) -> None:
    edge = api.as_(Role.VIEWER, "edge")
    assert {it["agent"] for it in kept(api, edge)} == {"web-01", "web-02"}
    with opened(api, edge) as response:
        stream = Stream(response)
        api.ledger.add_command("db-01", REQUEST)
        api.ledger.add_command("web-02", REQUEST)
        found = stream.next()
    assert found
    assert found["agent"] == "web-02"
    other = api.ledger.commands(agent="db-01")[0].command.id
    for query, code in (({"agent": "db-01"}, "unknown_agent"), ({"command": other}, "unknown_command")):
        assert api.http.get("/v1/events", params=query, headers=edge).json()["code"] == code


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"agent": "mail-01"}, 404, "unknown_agent"),
        ({"command": "none"}, 404, "unknown_command"),
        ({"operation": "none"}, 404, "unknown_operation"),
        ({"type": "command_lost"}, 400, "invalid_request"),
        ({"after": "-1"}, 400, "invalid_request"),
        ({"after": "1", "since": "2026-01-01"}, 400, "ambiguous_start"),
        ({"after": "1"}, 410, "events_pruned"),
        ({"after": str(2**53)}, 410, "events_pruned"),
    ],
)
def test_start_or_filter_that_is_not_there_is_a_problem(
    api: RunningApi, query: dict[str, str], status: int, code: str
) -> None:
    answer = api.http.get("/v1/events", params=query, headers=api.as_(Role.VIEWER))
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_end_of_the_credential_ends_the_stream(api: RunningApi, clock: TurnedClock, end: str) -> None:
    with opened(api) as response:
        stream = Stream(response)
        (token,) = api.tokens.all()
        if end == "revoked":
            api.tokens.revoke(token.id)
        else:
            clock.turn(86400.0)
        assert stream.rest() == []


def test_end_of_the_api_ends_the_stream_and_what_else_waits(ledger: Ledger, clock: TurnedClock) -> None:
    command = ledger.add_command("web-01", REQUEST)
    answers = []

    def wait_for_command(url: str, headers: dict[str, str]) -> None:
        answers.append(httpx.get(url, params={"wait_s": 60}, headers=headers, timeout=60, trust_env=False))

    with httpx.Client(trust_env=False, timeout=60) as http:
        with running_api(ledger, clock) as api:
            follower, waiter = api.as_(Role.VIEWER), api.as_(Role.VIEWER, name="bob")
            waiting = Thread(target=wait_for_command, args=(f"{api.url}/v1/commands/{command.id}", waiter))
            waiting.start()
            wait_for(lambda: any(it.principal.name == "bob" and it.used_at for it in api.tokens.all()), "the request")
            response = http.send(http.build_request("GET", f"{api.url}/v1/events", headers=follower), stream=True)
            stream = Stream(response)
        assert stream.rest() == []
    waiting.join()
    assert answers[0].json()["state"] == "queued"


class Client:
    """A client of the application without a connection: it takes so many messages, and none after that."""

    def __init__(self, takes: int) -> None:
        self._takes = takes
        self.taken: list[bytes] = []
        self.leaves = asyncio.Event()

    async def send(self, message: Any) -> None:
        if len(self.taken) >= self._takes:
            await asyncio.Event().wait()
        self.taken.append(message.get("body", b""))

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


async def served(streams: EventStreams, client: Client, start: int = 0) -> None:
    answer = streams.answer(WHO, EventSpan(EventScope(EventFilter()), start, None))
    await answer({}, client.receive, client.send)


def streams_of(ledger: Ledger, **bounds: Any) -> EventStreams:
    feed = EventFeed(ledger, Pulse(ledger.database.changes))
    return EventStreams(feed, lambda credentials: credentials, StreamBounds(**bounds))


def test_stream_is_ended_once_its_credential_is_not_valid(ledger: Ledger) -> None:
    async def run() -> None:
        streams = EventStreams(EventFeed(ledger, Pulse(ledger.database.changes)), lambda _: set())
        async with streams.running():
            await asyncio.wait_for(served(streams, Client(takes=1000)), 20)

    asyncio.run(run())


def test_client_that_takes_nothing_is_ended(ledger: Ledger) -> None:
    async def run() -> None:
        streams = streams_of(ledger, send_within_s=0.01)
        async with streams.running():
            client = Client(takes=2)
            await served(streams, client)
            assert client.taken[1].startswith(b"retry: ")

    asyncio.run(run())


def test_stream_ends_when_its_client_leaves_and_makes_room_for_another(ledger: Ledger) -> None:
    async def run() -> None:
        streams = streams_of(ledger, streams=1)
        async with streams.running():
            client = Client(takes=1000)
            stream = asyncio.create_task(served(streams, client))
            while len(client.taken) < 3:
                await asyncio.sleep(0)
            with pytest.raises(TooManyStreams):
                await served(streams, client)
            client.leaves.set()
            await stream
            streams.answer(WHO, EventSpan(EventScope(EventFilter()), 0, None))

    asyncio.run(run())


def test_idle_stream_repeats_its_position(ledger: Ledger) -> None:
    end = ledger.events.end()

    async def run() -> None:
        streams = streams_of(ledger, heartbeat_s=0.01)
        async with streams.running():
            client = Client(takes=1000)
            stream = asyncio.create_task(served(streams, client, end))
            while len(client.taken) < 4:
                await asyncio.sleep(0.001)
            client.leaves.set()
            await stream
            assert client.taken[2] == client.taken[3] == b": \nid: %d\n\n" % end

    asyncio.run(run())


def test_clients_behind_what_is_in_memory_read_the_ledger(ledger: Ledger) -> None:
    """Also those in the middle of it; each gets all that follows its position."""

    async def run() -> None:
        pulse = Pulse(ledger.database.changes)
        feed = EventFeed(ledger, pulse)
        scope, start = EventScope(EventFilter()), ledger.events.end()
        first_of_all = ledger.events.after(0).events[0].id
        async with pulse.running(), feed.running():
            with feed.followed():
                for _ in range(5):
                    grown = feed.next
                    await asyncio.to_thread(ledger.add_operation, [f"a-{it}" for it in range(1000)], "all", REQUEST)
                    await asyncio.wait_for(grown.wait(), 30)
                end = ledger.events.end()
                for first in (0, start, start + 1500, end - 300, end):
                    position, count = first, 0
                    while position != end:
                        cut = await feed.after(scope, position)
                        position, count = cut.position, count + cut.frames.count(b"\ndata: ")
                    assert count == end - max(first, first_of_all - 1)

    asyncio.run(run())
