"""The outbox: commands and cancels that are due to be published, claimed once, and again when they go unanswered.

A claim marks its rows as sent before anything is published, and `resend_at` is the end of the visibility timeout.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.states import ErrorCode
from broker.contract.topics import AGENT_NAME
from broker.contract.trace_context import TraceContext
from broker.ledger.agents import get_or_create_all, is_silent, lock_agents, lock_selected
from broker.ledger.completion import complete_by_server, message_of
from broker.ledger.damage import damage_in_command
from broker.ledger.enqueue import MAX_COMMAND_BYTES
from broker.ledger.event_types import EventType
from broker.ledger.many_rows import as_keys, as_rows, given_keys, given_rows, update_each
from broker.ledger.noted_events import note_all
from broker.ledger.records import AgentRecord, CommandRecord
from broker.ledger.shares import share_of_each, share_out
from broker.ledger.tables import AGENTS, CANCEL_IS_DUE, COMMANDS, IS_DUE, IS_OPEN, Cancel, CommandState, in_state
from broker.system.retry import LONGEST_WAIT_S, growing_wait

__all__ = [
    "Claimed",
    "DueCommand",
    "any_overdue",
    "claim_due",
    "due_agents",
    "extend_timeouts",
    "requeue",
    "requeue_all",
    "requeue_overdue",
]


_TOO_LONG = "The command is too long to be signed and was not sent; send a shorter one, or a file with --file."
_MAX_CLAIMED_CHARACTERS = 4 << 20
_ROWS_PER_FETCH = 100
_AGENTS_PER_REQUEUE = 500
_LEAST_LEFT_S = 1.0
_UNACCEPTED = sa.and_(in_state(CommandState.SENT), COMMANDS.c.to_send.is_(False))
_UNCANCELLED = sa.and_(IS_OPEN, COMMANDS.c.cancel == Cancel.SENT)
_OF_GIVEN = COMMANDS.c.agent.in_(given_keys())
_NOT_OFFLINE = sa.select(AGENTS.c.name).where(sa.or_(AGENTS.c.online.is_(True), AGENTS.c.status.is_(None)))
_OF_NOT_OFFLINE = COMMANDS.c.agent.in_(_NOT_OFFLINE)


def _due_commands_of_given() -> sa.Select[Any]:
    due = COMMANDS.select().where(IS_DUE, _OF_GIVEN)
    return due.order_by(COMMANDS.c.agent, COMMANDS.c.epoch, COMMANDS.c.number).limit(sa.bindparam("most"))


def _due_cancels_of_given() -> sa.Select[Any]:
    due = sa.select(COMMANDS.c.agent, COMMANDS.c.id).where(CANCEL_IS_DUE, _OF_GIVEN)
    return due.order_by(COMMANDS.c.agent, COMMANDS.c.created_at).limit(sa.bindparam("most"))


def _next_agents(*conditions: sa.ColumnElement[bool]) -> sa.CompoundSelect[Any]:
    """Select the next agents by name with commands that meet any condition: each costs one look into its index."""
    return sa.union(*map(_next_with, conditions)).order_by("agent").limit(sa.bindparam("most"))


def _next_with(is_due: sa.ColumnElement[bool]) -> sa.Select[Any]:
    next_name = sa.func.min(COMMANDS.c.agent).label("agent")
    first = sa.select(next_name).where(is_due, COMMANDS.c.agent > sa.bindparam("after")).cte(recursive=True)
    following = sa.select(next_name).where(is_due, COMMANDS.c.agent > first.c.agent).scalar_subquery()
    found = first.union_all(sa.select(following).where(first.c.agent.is_not(None)))
    some = sa.select(found.c.agent).where(found.c.agent.is_not(None)).limit(sa.bindparam("most")).subquery()
    return sa.select(some.c.agent)


def _counts(is_due: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Select how many such commands each of the given agents has, counting no further than `most`."""
    given = given_rows()
    some = sa.select(COMMANDS.c.id).where(is_due, COMMANDS.c.agent == given.c.key).limit(sa.bindparam("most"))
    count = sa.select(sa.func.count()).select_from(some.correlate(given).subquery()).correlate(given)
    return sa.select(given.c.key, count.scalar_subquery())


_DUE_COMMANDS, _DUE_CANCELS = _due_commands_of_given(), _due_cancels_of_given()
_NEXT_AGENTS = _next_agents(IS_DUE, CANCEL_IS_DUE)
_COUNT_COMMANDS, _COUNT_CANCELS = _counts(IS_DUE), _counts(CANCEL_IS_DUE)
_ANY_CANCEL = sa.select(COMMANDS.c.id).where(CANCEL_IS_DUE).limit(1)
_AS_SENT = sa.case((COMMANDS.c.state == CommandState.QUEUED, CommandState.SENT), else_=COMMANDS.c.state)
_FIRST_SENT_AT = sa.func.coalesce(COMMANDS.c.sent_at, sa.bindparam("time", type_=sa.Float))
_MARK_SENT = (
    COMMANDS.update()
    .where(COMMANDS.c.id.in_(given_keys()))
    .values(to_send=False, state=_AS_SENT, sent_at=_FIRST_SENT_AT)
)
_MARK_CANCEL_SENT = COMMANDS.update().where(COMMANDS.c.id.in_(given_keys())).values(cancel=Cancel.SENT)
_SCHEDULE = update_each(AGENTS.c.name, AGENTS.c.resend_at, AGENTS.c.attempts)


@dataclass(frozen=True)
class DueCommand:
    """A command to publish, as the message for its agent.

    `type` is that of the command, if it is known. `waited_s` is how long it had waited, by the ledger's clock, if it is
    sent for the first time; None: again. `trace` is the context that it was created in, if that is recorded.
    """

    id: str
    message: bytes
    waited_s: float | None = None
    type: str | None = None
    trace: TraceContext | None = None


@dataclass(frozen=True)
class Claimed:
    """What must be published now, all of it marked as sent: (agent, command id to cancel), (agent, command)."""

    cancels: list[tuple[str, str]]
    commands: list[tuple[str, DueCommand]]


def due_agents(connection: sa.Connection, after: str, limit: int) -> list[str]:
    """Return at most `limit` agents that have commands or cancels due, in turn: those after this name come first."""
    found = list(connection.scalars(_NEXT_AGENTS, {"after": after, "most": limit}))
    if after and len(found) < limit:
        found += connection.scalars(_NEXT_AGENTS, {"after": "", "most": limit})
    return list(dict.fromkeys(found))[:limit]


def claim_due(connection: sa.Connection, limit: int, among: Sequence[str] | None, now: datetime) -> Claimed:
    """Claim at most `limit` cancels and as many commands that are due, of these agents only unless `among` is None.

    Each agent gets a share of both, the first ones of `among` first. Commands are in sequence for each agent, and have
    some 4 MiB at most together. One that is too long for a signed frame (added before commands were signed) is
    completed with an error: all commands after it would wait forever.
    """
    agents = due_agents(connection, "", limit) if among is None else among
    lock_agents(connection, agents)
    cancels = _claim_cancels(connection, limit, agents)
    commands = _claim_commands(connection, limit, agents, now)
    served = {agent for agent, _ in cancels} | {record.agent for record in commands}
    if served:
        rows = get_or_create_all(connection, sorted(served), now)
        _schedule(connection, {row.name: (now.timestamp() + growing_wait(row.attempts), row.attempts) for row in rows})
    return Claimed(cancels, [(it.agent, _due_command(it, now)) for it in commands])


def _due_command(record: CommandRecord, now: datetime) -> DueCommand:
    trace = None if record.trace is None else TraceContext.of_text(record.trace)
    return DueCommand(record.id, message_of(record), _waited_s(record, now), record.type, trace)


def _waited_s(record: CommandRecord, now: datetime) -> float | None:
    return now.timestamp() - record.created_at if record.sent_at is None else None


def _claim_commands(connection: sa.Connection, limit: int, agents: Sequence[str], now: datetime) -> list[CommandRecord]:
    found = _read_within(_due_commands(connection, limit, agents), _MAX_CLAIMED_CHARACTERS)
    claimed = [record for record in found if not _completed_as_unfit(connection, record, now)]
    if claimed:
        connection.execute(_MARK_SENT, {**as_keys(record.id for record in claimed), "time": now.timestamp()})
        first = [(record.agent, record.id) for record in claimed if record.state == CommandState.QUEUED]
        note_all(connection, EventType.COMMAND_SENT, first, now=now)
    return claimed


def _due_commands(connection: sa.Connection, limit: int, agents: Sequence[str]) -> Iterator[CommandRecord]:
    for some, most in _shares(connection, _COUNT_COMMANDS, limit, agents):
        streamed = {"yield_per": _ROWS_PER_FETCH}
        with connection.execute(_DUE_COMMANDS, {**as_keys(some), "most": most}, execution_options=streamed) as rows:
            for row in rows:
                yield CommandRecord(*row)


def _read_within(records: Iterator[CommandRecord], characters: int) -> list[CommandRecord]:
    """Return the first records, until they have this many characters together."""
    taken = []
    for record in records:
        taken.append(record)
        characters -= len(record.body or "")
        if characters <= 0:
            break
    return taken


def _claim_cancels(connection: sa.Connection, limit: int, agents: Sequence[str]) -> list[tuple[str, str]]:
    if connection.scalar(_ANY_CANCEL) is None:
        return []
    claimed: list[tuple[str, str]] = []
    for some, most in _shares(connection, _COUNT_CANCELS, limit, agents):
        rows = connection.execute(_DUE_CANCELS, {**as_keys(some), "most": most})
        claimed += [(agent, command_id) for agent, command_id in rows]
    if claimed:  # also one whose agent has a damaged name: it would stay due, and be looked at again and again
        connection.execute(_MARK_CANCEL_SENT, as_keys(command_id for _, command_id in claimed))
    return [it for it in claimed if AGENT_NAME.fullmatch(it[0])]


def _shares(
    connection: sa.Connection, counts: sa.Select[Any], limit: int, agents: Sequence[str]
) -> Iterator[tuple[list[str], int]]:
    share = share_of_each(len(agents), limit)
    return share_out(_count_due(connection, counts, share, agents), limit, share)


def _count_due(connection: sa.Connection, counts: sa.Select[Any], most: int, agents: Iterable[str]) -> dict[str, int]:
    """Return how much is due for each agent that has any, in this order, counting at most one more than `most`."""
    found = {row[0]: row[1] for row in connection.execute(counts, {**as_keys(agents), "most": most + 1})}
    return {agent: count for agent in agents if (count := found.get(agent))}


def any_overdue(connection: sa.Connection, now: datetime) -> bool:
    """Whether an online agent has not answered in time, so that `requeue_overdue` would write anything."""
    return connection.execute(_overdue(now).limit(1)).one_or_none() is not None


def requeue_overdue(connection: sa.Connection, now: datetime) -> None:
    """Make due again what some online agents have not answered in time, with a longer timeout than before."""
    names = list(connection.scalars(_overdue(now).order_by(AGENTS.c.name).limit(_AGENTS_PER_REQUEUE)))
    agents = get_or_create_all(connection, names, now)
    requeue(connection, names)
    due = {name for counts in (_COUNT_COMMANDS, _COUNT_CANCELS) for name in _count_due(connection, counts, 0, names)}
    later = {
        it.name: (now.timestamp() + growing_wait(it.attempts + 1), it.attempts + 1) if it.name in due else (None, 0)
        for it in agents
    }
    _schedule(connection, later)


def requeue_all(connection: sa.Connection) -> None:
    """Make due again what agents have not answered, unless they are offline: those get it when they come back."""
    lock_selected(connection, _NOT_OFFLINE)
    for update in _requeue(_OF_NOT_OFFLINE):
        connection.execute(update)
    connection.execute(AGENTS.update().where(AGENTS.c.attempts > 0).values(attempts=0))


def requeue(connection: sa.Connection, agents: Sequence[str]) -> None:
    """Make these agents' unaccepted commands and unanswered cancels due."""
    for update in _REQUEUE_GIVEN:
        connection.execute(update, as_keys(agents))


def _requeue(which: sa.ColumnElement[bool]) -> tuple[sa.Update, sa.Update]:
    unaccepted = COMMANDS.update().where(which, _UNACCEPTED).values(to_send=True)
    return unaccepted, COMMANDS.update().where(which, _UNCANCELLED).values(cancel=Cancel.TO_SEND)


_REQUEUE_GIVEN = _requeue(_OF_GIVEN)


def extend_timeouts(connection: sa.Connection, agents: Sequence[AgentRecord], now: datetime) -> None:
    """Begin the timeouts of these agents again: they have just answered a part of what was sent to them.

    So the rest of a long queue is not sent again while its agent works through it. Only a timeout that ends soon, or
    has grown, costs a write.
    """
    time = now.timestamp()
    ending = {
        it.name: (None if it.resend_at is None else time + growing_wait(0), 0)
        for it in agents
        if it.attempts or (it.resend_at is not None and it.resend_at < time + _LEAST_LEFT_S)
    }
    _schedule(connection, ending)


def _overdue(now: datetime) -> sa.Select[Any]:
    """Select the names of the online agents whose timeout is over; a silent one gets it with its next status.

    A time further ahead than any timeout was written before the clock was set back, and is over as well.
    """
    time, resend_at = now.timestamp(), AGENTS.c.resend_at
    is_over = sa.or_(resend_at <= time, resend_at > time + LONGEST_WAIT_S)
    return sa.select(AGENTS.c.name).where(is_over, AGENTS.c.online.is_(True), sa.not_(is_silent(now)))


def _completed_as_unfit(connection: sa.Connection, record: CommandRecord, now: datetime) -> bool:
    """Complete a command that is damaged or too long; return whether it was."""
    unfit = damage_in_command(record) is not None or len(record.body.encode()) > MAX_COMMAND_BYTES
    if unfit:
        complete_by_server(connection, record, ErrorCode.INVALID, _TOO_LONG, now)
    return unfit


def _schedule(connection: sa.Connection, timeouts: Mapping[str, tuple[float | None, int]]) -> None:
    """Set the end of the timeout, and the number of attempts, of each agent."""
    if timeouts:
        connection.execute(_SCHEDULE, as_rows(timeouts))
