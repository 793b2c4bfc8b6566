"""The hops of a command from its facts, and where its time went."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.fleet.facts import AgentFacts, CommandFacts
from broker.fleet.timeline import Bound, Hop, HopClock, HopName, Part, Timeline, timeline_of

START = datetime(2026, 1, 2, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


QUEUED = CommandFacts("c", "web-01", "restart-agent", "queued", at(0))
RUNNING = replace(QUEUED, state="running", sent_at=at(1), stored_at=at(3), running_at=at(4))
ENDED = replace(
    RUNNING,
    state="completed",
    completed_at=at(20),
    began_at=at(5),
    ended_at=at(15),
    outcome="success",
    store_generation="g",
)
AFTERWARDS = AgentFacts("online", at(30), "g")


def hop(timeline: Timeline, name: HopName) -> Hop:
    return next(it for it in timeline.hops if it.name is name)


def reached(timeline: Timeline) -> list[str]:
    return [it.name for it in timeline.hops if it.at is not None]


def test_every_hop_of_an_ended_command_has_its_time_and_its_clock() -> None:
    timeline = timeline_of(ENDED, AFTERWARDS)
    assert [(it.name, it.at, it.clock, it.bound, it.took_s) for it in timeline.hops] == [
        ("created", at(0), HopClock.LEDGER, Bound.AT, None),
        ("claimed", at(1), HopClock.LEDGER, Bound.AT, 1.0),
        ("published", at(1), HopClock.LEDGER, Bound.AFTER, None),
        ("stored", at(3), HopClock.LEDGER, Bound.AT, 2.0),
        ("started", at(5), HopClock.AGENT, Bound.AT, None),
        ("finished", at(15), HopClock.AGENT, Bound.AT, 10.0),
        ("reported", at(20), HopClock.LEDGER, Bound.AT, 17.0),
        ("acked", at(20), HopClock.LEDGER, Bound.AFTER, None),
        ("deleted", at(30), HopClock.LEDGER, Bound.BY, None),
    ]
    assert {it.note for it in timeline.hops} == {""}
    assert timeline.total_s == 20.0
    assert [(it.part, it.seconds) for it in timeline.spent] == [
        (Part.UNTIL_SENT, 1.0),
        (Part.RUNNING, 10.0),
        (Part.ELSEWHERE, 9.0),
    ]


def test_open_command_has_the_hops_that_it_has_reached() -> None:
    assert reached(timeline_of(QUEUED, AFTERWARDS)) == ["created"]
    timeline = timeline_of(RUNNING, AFTERWARDS)
    assert reached(timeline) == ["created", "claimed", "published", "stored", "started"]
    assert (hop(timeline, HopName.STARTED).clock, hop(timeline, HopName.STARTED).took_s) == (HopClock.LEDGER, 1.0)
    assert (timeline.total_s, timeline.agent_ahead_s) == (None, None)


@pytest.mark.parametrize(
    "agent",
    [
        AgentFacts(),
        replace(AFTERWARDS, seen_at=at(20)),
        replace(AFTERWARDS, results_waiting=1),
        replace(AFTERWARDS, store_generation="another"),
        replace(AFTERWARDS, running_command="c"),
    ],
    ids=["no status", "no later one", "results wait", "another store", "it runs"],
)
def test_deletion_is_known_only_by_a_later_status_without_results(agent: AgentFacts) -> None:
    deleted = hop(timeline_of(ENDED, agent), HopName.DELETED)
    assert (deleted.at, bool(deleted.note)) == (None, True)


def test_command_that_the_server_completed_has_no_hops_of_its_agent() -> None:
    by_server = replace(QUEUED, state="completed", completed_at=at(9), ended_at=at(9), code="expired", by_server=True)
    timeline = timeline_of(by_server, AFTERWARDS)
    assert reached(timeline) == ["created", "reported"]
    assert hop(timeline, HopName.REPORTED).note
    assert hop(timeline, HopName.CLAIMED).note == "it was never sent"


def test_result_that_comes_before_the_notices_tells_why_their_times_are_missing() -> None:
    at_once = replace(ENDED, stored_at=None, running_at=None, began_at=None)
    timeline = timeline_of(at_once, AFTERWARDS)
    assert [it.name for it in timeline.hops if it.note] == ["stored", "started"]
    assert hop(timeline, HopName.REPORTED).took_s == 19.0


@pytest.mark.parametrize(("began", "ended", "ahead"), [(5, 15, None), (65, 75, 55.0), (-60, -50, -61.0), (1, 20, None)])
def test_clock_that_contradicts_the_order_is_told(began: float, ended: float, ahead: float | None) -> None:
    timeline = timeline_of(replace(ENDED, began_at=at(began), ended_at=at(ended)), AFTERWARDS)
    assert timeline.agent_ahead_s == ahead
    assert hop(timeline, HopName.STARTED).took_s is None, "two clocks are never subtracted"


def test_parts_that_a_clock_contradicts_are_left_out() -> None:
    longer = replace(ENDED, ended_at=at(500))
    assert Part.ELSEWHERE not in [it.part for it in timeline_of(longer, AFTERWARDS).spent]
