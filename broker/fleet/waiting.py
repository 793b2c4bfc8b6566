"""Where an open command waits, since when, why, and what to do: a pure function of facts.

Each reason is looked for in the order of the way: what stops the server comes before what stops the agent, since
nothing newer is known of an agent while the server receives nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from broker.fleet.described import says
from broker.fleet.facts import AgentFacts, Facts
from broker.fleet.reasons import EXPLANATIONS, Reason
from broker.fleet.timeline import HopName

__all__ = [
    "Waiting",
    "waiting_of",
]


_UNSTORED = ("queued", "sent")
_HELD = {"not_enrolled": Reason.NOT_ENROLLED, "status_unknown": Reason.STATUS_UNKNOWN}
_NEXT_HOP = {
    "queued": HopName.CLAIMED,
    "sent": HopName.STORED,
    "accepted": HopName.STARTED,
    "running": HopName.FINISHED,
}
_GRACE_S = 10.0  # for the agent to end a handler, and for its result to arrive
_COUNTED = 1000
_SERVER_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Waiting:
    """An open command waits for `hop`, `since` the one before (UTC); `cause_since` is when the reason began, if known.

    `reason` is a stable code, `why` one clear sentence, and `advice` what to do: one command, or one sentence.
    """

    hop: Annotated[HopName, says("The hop that it waits for.", "claimed")]
    since: Annotated[datetime, says("When the hop before that was.")]
    reason: Annotated[Reason, says("Why, as a stable code; docs/operations.md has them all.", "agent_offline")]
    why: Annotated[str, says("Why, as a sentence for people.")]
    advice: Annotated[str, says("What to do: one command of `acm`, or one sentence.")]
    cause_since: Annotated[datetime | None, says("Since when the reason applies, if that is known.")]


@dataclass(frozen=True)
class _Cause:
    """A reason that applies, since when if that is known, and what its sentence needs besides."""

    reason: Reason
    since: datetime | None = None
    words: tuple[tuple[str, str], ...] = ()


def waiting_of(facts: Facts) -> Waiting | None:
    """Return where an open command waits and why; None for one that has ended."""
    command = facts.command
    if command.state not in _NEXT_HOP:
        return None
    cause = next(cause for look in _LOOKS for cause in look(facts))
    words = {
        "id": command.id,
        "agent": command.agent,
        "since": _time(cause.since),
        "last_error": facts.agent.last_error or "",
        "before": _count(facts.queue.before),
        "progress": f": {facts.progress}" if facts.progress else "",
        **dict(cause.words),
    }
    explanation = EXPLANATIONS[cause.reason]
    return Waiting(
        _NEXT_HOP[command.state],
        command.running_at or command.stored_at or command.sent_at or command.created_at,
        cause.reason,
        explanation.why.format(**words),
        explanation.advice.format(**words),
        cause.since,
    )


def _server(facts: Facts) -> Iterator[_Cause]:
    if not facts.servers:
        yield _Cause(Reason.SERVER_DOWN)
        return
    server, due_since = facts.servers[0], _due_since(facts)
    words = (("pid", str(server.pid)), ("host", server.host), ("problem", server.connection_problem or ""))
    if all(it.is_stopped for it in facts.servers):
        yield _Cause(Reason.SERVER_STOPPED, words=words)
    if all(it.connection_problem is not None for it in facts.servers):
        yield _Cause(Reason.BROKER_UNREACHABLE, server.connection_at, words)
    if due_since is not None and facts.now > due_since + timedelta(seconds=_SERVER_PATIENCE_S):
        yield _Cause(Reason.SERVER_HANGS, due_since, words)


def _due_since(facts: Facts) -> datetime | None:
    """Return since when a server that is connected has had nothing else to do for the agent than to send the command.

    It sends the first one of each agent at once, also to one that is offline.
    """
    command, queue = facts.command, facts.queue
    if command.state != "queued" or not command.is_due or facts.agent.hold is not None or queue.before:
        return None
    return max(command.created_at, *(it.connection_at or facts.now for it in facts.servers))


def _expiry(facts: Facts) -> Iterator[_Cause]:
    expires_at = facts.command.expires_at
    if facts.command.state in _UNSTORED and expires_at is not None and expires_at <= facts.now:
        yield _Cause(Reason.EXPIRED, expires_at)


def _enrolment(facts: Facts) -> Iterator[_Cause]:
    agent = facts.agent
    is_cut_off = agent.hold is not None or agent.state != "online"
    if agent.enrolment == "revoked" and is_cut_off:
        yield _Cause(Reason.REVOKED, agent.enrolment_end)
    if agent.enrolment == "expired" and agent.state != "online":
        yield _Cause(Reason.CERTIFICATE_ENDED, agent.enrolment_end)
    if agent.hold in _HELD and facts.command.state in _UNSTORED:
        yield _Cause(_HELD[agent.hold])


def _presence(facts: Facts) -> Iterator[_Cause]:
    agent = facts.agent
    if agent.name_conflict:
        yield _Cause(Reason.NAME_CONFLICT)
    if agent.seen_at is None:
        yield _Cause(Reason.NEVER_CONNECTED)
    if agent.state == "offline":
        yield _offline(facts)
    if agent.state == "silent":
        yield _Cause(Reason.AGENT_SILENT, agent.seen_at)


def _offline(facts: Facts) -> _Cause:
    agent = facts.agent
    if agent.clock_ahead_s is not None:
        return _Cause(Reason.CLOCK_OFF, agent.seen_at, (("clock", _clock(agent.clock_ahead_s)),))
    return _Cause(
        Reason.AGENT_OFFLINE if facts.command.state in _UNSTORED else Reason.OFFLINE_WITH_IT,
        agent.seen_at,
    )


def _store(facts: Facts) -> Iterator[_Cause]:
    if "store_locked" in facts.agent.problems:
        yield _Cause(Reason.STORE_LOCKED)
    if "store_full" in facts.agent.problems and facts.command.state in _UNSTORED:
        yield _Cause(Reason.DISK_FULL)


def _way_to_agent(facts: Facts) -> Iterator[_Cause]:
    if facts.command.state not in _UNSTORED:
        return
    if facts.command.is_due:
        yield _Cause(Reason.NOT_SENT_YET)
    elif "message" in facts.agent.problems:
        yield _Cause(Reason.MESSAGE_REFUSED)
    elif "connection" in facts.agent.problems:
        yield _Cause(Reason.CONNECTION_PROBLEM)
    else:
        resend_at = facts.agent.resend_at
        resend = f"at {_time(resend_at)}" if resend_at and resend_at > facts.now else "soon"
        yield _Cause(Reason.UNCONFIRMED, words=(("resend", resend),))


def _on_agent(facts: Facts) -> Iterator[_Cause]:
    command, running = facts.command, facts.queue.running
    if command.state == "running":
        yield from _running(facts)
    elif running is not None:
        words = (("running", running.id), ("running_type", running.type))
        yield _Cause(Reason.BEHIND_ANOTHER, running.since, words)
    else:
        yield _Cause(Reason.NEXT)


def _running(facts: Facts) -> Iterator[_Cause]:
    command = facts.command
    began, timeout_s = command.running_at or command.stored_at, command.timeout_s
    if _has_ended(facts.agent, command.id, began):
        yield _Cause(Reason.RESULT_UNSENT)
    if timeout_s is not None and began and facts.now > began + timedelta(seconds=timeout_s + _GRACE_S):
        yield _Cause(Reason.OVERDUE, began, (("timeout", f"{timeout_s:g} s"),))
    yield _Cause(Reason.RUNNING, began)


def _has_ended(agent: AgentFacts, command_id: str, began: datetime | None) -> bool:
    is_later = agent.seen_at is not None and (began is None or agent.seen_at > began)
    return is_later and agent.results_waiting > 0 and agent.running_command != command_id


_LOOKS: tuple[Callable[[Facts], Iterator[_Cause]], ...] = (
    _server,
    _expiry,
    _enrolment,
    _presence,
    _store,
    _way_to_agent,
    _on_agent,
)


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "an unknown time"


def _count(count: int) -> str:
    return f"{count} or more" if count >= _COUNTED else str(count)


def _clock(ahead_s: float) -> str:
    return f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'}"
