"""The timeline of a command: every hop on its way, when it happened, by whose clock, and where the time went.

Pure functions of facts. Two clocks appear, and neither corrects the other: that of the ledger, and that of the agent's
machine. So a duration is only ever the difference of two times of the same clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from broker.fleet.described import says
from broker.fleet.facts import AgentFacts, CommandFacts

__all__ = [
    "Bound",
    "Hop",
    "HopClock",
    "HopName",
    "Part",
    "Spent",
    "Timeline",
    "timeline_of",
]


class HopName(StrEnum):
    """The hops of a command, in their order; docs/operations.md says what the time of each is."""

    CREATED = "created"
    CLAIMED = "claimed"
    PUBLISHED = "published"
    STORED = "stored"
    STARTED = "started"
    FINISHED = "finished"
    REPORTED = "reported"
    ACKED = "acked"
    DELETED = "deleted"


class HopClock(StrEnum):
    """Whose clock a time is by: the ledger's (of its database's machine), or the agent's machine's."""

    LEDGER = "ledger"
    AGENT = "agent"


class Bound(StrEnum):
    """How a hop's time is meant: exactly then, right after it, or by then at the latest."""

    AT = "at"
    AFTER = "after"
    BY = "by"


class Part(StrEnum):
    """What a part of a command's time was spent on."""

    UNTIL_SENT = "until_sent"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    """On the way to the agent and back, and waiting there for its turn."""


@dataclass(frozen=True)
class Hop:
    """One hop: its time (UTC; None if it has not happened, or is not known), and how that is meant.

    `took_s` are the seconds since the hop before it whose time is exact and by the same clock. `note` is one sentence
    without its full stop about a time that is missing or unusual; empty if there is nothing to say.
    """

    name: Annotated[HopName, says("The hop; docs/operations.md says what the time of each is.", "stored")]
    at: Annotated[datetime | None, says("When; null: it has not happened, or that is not known.")] = None
    clock: Annotated[HopClock, says("By whose clock: the ledger's, or the agent's machine's.")] = HopClock.LEDGER
    bound: Annotated[Bound, says("Exactly then, right after it, or by then at the latest.")] = Bound.AT
    took_s: Annotated[
        float | None, says("Seconds since the hop before it whose time is exact and by the same clock.", 0.5)
    ] = None
    note: Annotated[str, says("What is to be said of a time that is missing or unusual; else empty.")] = ""


@dataclass(frozen=True)
class Spent:
    """A part of a command's time, in seconds."""

    part: Annotated[Part, says("What the time was spent on; `elsewhere`: on the way, and waiting on the agent.")]
    seconds: Annotated[float, says("How long.", 0.5)]


@dataclass(frozen=True)
class Timeline:
    """The hops of a command and where its time went; `total_s` are the seconds from its creation to its result.

    `agent_ahead_s` is by how many seconds the agent's clock must have been ahead of the ledger's at least (negative:
    behind), as the order of the hops shows; None if the two agree with that order.
    """

    command: CommandFacts
    hops: tuple[Hop, ...]
    spent: tuple[Spent, ...]
    total_s: float | None
    agent_ahead_s: float | None


def timeline_of(command: CommandFacts, agent: AgentFacts) -> Timeline:
    """Return the timeline of a command, open or ended."""
    hops = tuple(_with_durations(_hops(command, agent)))
    total_s = _seconds(command.created_at, command.completed_at)
    return Timeline(command, hops, tuple(_spent(command)), total_s, _agent_ahead_s(command))


def _hops(command: CommandFacts, agent: AgentFacts) -> Iterator[Hop]:
    yield Hop(HopName.CREATED, command.created_at)
    unsent = "" if command.sent_at or command.state == "queued" else _why_unsent(command)
    yield Hop(HopName.CLAIMED, command.sent_at, note=unsent)
    yield Hop(HopName.PUBLISHED, command.sent_at, bound=Bound.AFTER)
    has_result = command.completed_at is not None and not command.by_server
    yield Hop(HopName.STORED, command.stored_at, note=_NO_NOTICE if has_result and not command.stored_at else "")
    yield _started(command, has_result=has_result)
    yield Hop(HopName.FINISHED, None if command.by_server else command.ended_at, HopClock.AGENT)
    yield Hop(HopName.REPORTED, command.completed_at, note=_BY_SERVER if command.by_server else "")
    yield Hop(HopName.ACKED, command.completed_at if has_result else None, bound=Bound.AFTER)
    yield _deleted(command, agent, has_result=has_result)


_NO_NOTICE = "its result came before, or with, the notice of it"
_BY_SERVER = "by the server itself, without its agent"
_NEVER_BEGAN = "it ended without having begun"
_NOT_KNOWN_DELETED = "no status without waiting results has arrived since"


def _why_unsent(command: CommandFacts) -> str:
    return "it was never sent" if command.by_server else "an earlier version has sent it"


def _started(command: CommandFacts, *, has_result: bool) -> Hop:
    """Return the hop by the agent's clock once there is a result; until then, when the agent's notice was recorded."""
    if has_result:
        return Hop(HopName.STARTED, command.began_at, HopClock.AGENT, note="" if command.began_at else _NEVER_BEGAN)
    return Hop(HopName.STARTED, command.running_at)


def _deleted(command: CommandFacts, agent: AgentFacts, *, has_result: bool) -> Hop:
    hop = Hop(HopName.DELETED, bound=Bound.BY)
    if not has_result:
        return hop
    return replace(hop, at=agent.seen_at) if _is_deleted(command, agent) else replace(hop, note=_NOT_KNOWN_DELETED)


def _is_deleted(command: CommandFacts, agent: AgentFacts) -> bool:
    """Whether a status of the same store has arrived since the result, and says that no results wait for acks."""
    assert command.completed_at is not None
    is_later = agent.seen_at is not None and agent.seen_at > command.completed_at
    is_same_store = agent.store_generation is not None and agent.store_generation == command.store_generation
    return is_later and is_same_store and not agent.results_waiting and agent.running_command != command.id


def _with_durations(hops: Iterator[Hop]) -> Iterator[Hop]:
    last: dict[HopClock, datetime] = {}
    for hop in hops:
        exact = hop.at if hop.bound is Bound.AT else None
        yield replace(hop, took_s=_seconds(last.get(hop.clock), exact))
        if exact is not None:
            last[hop.clock] = exact


def _spent(command: CommandFacts) -> Iterator[Spent]:
    until_sent = _seconds(command.created_at, command.sent_at)
    running = _seconds(command.began_at, command.ended_at)
    total = _seconds(command.created_at, command.completed_at)
    known = {Part.UNTIL_SENT: until_sent, Part.RUNNING: running}
    for part, seconds in known.items():
        if seconds is not None:
            yield Spent(part, seconds)
    if total is not None:
        rest = total - sum(seconds or 0.0 for seconds in known.values())
        if rest >= 0:  # else a clock was set meanwhile
            yield Spent(Part.ELSEWHERE, rest)


def _agent_ahead_s(command: CommandFacts) -> float | None:
    """Return by how much the agent's clock contradicts the order of the hops: sent, began, ended, reported."""
    ahead = _seconds(command.completed_at, command.ended_at)
    if ahead is not None and ahead > 0:
        return ahead
    behind = _seconds(command.began_at, command.sent_at)
    return -behind if behind is not None and behind > 0 else None


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    return None if since is None or until is None else (until - since).total_seconds()
