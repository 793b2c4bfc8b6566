"""Sequence numbers of an agent's commands: contiguous from 1 within an epoch.

A new epoch begins when the agent has lost its store or was restored to an earlier one, and when it has seen numbers
that this ledger, restored from a backup, has not used yet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.messages import Feedback, SequenceNumber, Status
from broker.contract.states import ErrorCode
from broker.ledger.agents import get_or_create, status_in, update_agent
from broker.ledger.completion import complete_all
from broker.ledger.expiry import doubt_expired
from broker.ledger.many_rows import as_rows, given_rows, given_value
from broker.ledger.outcomes import SERVER
from broker.ledger.records import AgentRecord
from broker.ledger.renumbering import AGAIN, REPORTED_AS_OPEN, begin_epoch
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, CommandState

__all__ = [
    "Stand",
    "begin_epoch_after_conflict",
    "begin_epochs",
    "follow_store",
    "is_conflict",
    "next_sequence",
    "resend_after_rollbacks",
    "resend_from_gap",
]


_STORE_LOST = "The agent lost its command store; the command may have run or not. Check, then send a new one."
_NEVER_SENT = COMMANDS.c.state == CommandState.QUEUED
# What the agent reported itself: a command that the server completed may never have reached it.
_REPORTED = sa.or_(
    COMMANDS.c.state.in_(REPORTED_AS_OPEN),
    sa.and_(COMMANDS.c.state == CommandState.COMPLETED, COMMANDS.c.digest != SERVER),
)


def _have_reported_from() -> sa.Select[Any]:
    """Select the given agents that have reported a command of the given epoch, from the given number on."""
    given = given_rows()
    epoch, number = (given_value(given, place, sa.BigInteger()) for place in (0, 1))
    is_later = sa.and_(COMMANDS.c.agent == given.c.key, COMMANDS.c.epoch == epoch, COMMANDS.c.number >= number)
    return sa.select(given.c.key).where(sa.exists().where(is_later, _REPORTED))


_HAVE_REPORTED_FROM = _have_reported_from()


@dataclass(frozen=True)
class Stand:
    """What a status says of the numbers of its agent. `is_certain`: it is the agent's state now."""

    row: AgentRecord
    status: Status
    is_certain: bool

    @property
    def first(self) -> int:
        """The number that the agent expects in the epoch of its row."""
        return self.status.last_sequence + 1 if self.status.epoch == self.row.epoch else 1


def next_sequence(connection: sa.Connection, agent: str, now: datetime) -> SequenceNumber:
    """Return the agent's next sequence number, and count it as used."""
    row = get_or_create(connection, agent, now)
    update_agent(connection, agent, next_number=row.next_number + 1, forgotten_at=None)
    return SequenceNumber(row.epoch, row.next_number)


def resend_from_gap(connection: sa.Connection, row: AgentRecord, gaps: Iterable[Feedback], now: datetime) -> bool:
    """Make due the commands that the agent is missing, by the newest of its gaps; the others are out of date.

    Return whether the agent must be asked first: it is missing a number that cannot be sent again, unless the gap is of
    an earlier time. A status without an order is of an agent that cannot be asked.
    """
    valid = [gap for gap in gaps if _is_of(row, gap) and gap.expected is not None]
    expected = valid[-1].expected if valid else None
    if expected is None or expected >= row.next_number:
        return False
    known = status_in(row.status)
    if known is not None and known.order is not None and not _is_open(connection, row, expected):
        return True
    _resend_from(connection, row, expected, now)
    return False


def follow_store(connection: sa.Connection, row: AgentRecord, status: Status, now: datetime) -> bool:
    """Begin a new epoch if the agent has lost its store, or has seen numbers that this ledger has not used.

    A lost store completes the commands that it may have held: whether they have run is unknown. Return whether a new
    epoch began.
    """
    closed, seen = status.closed_epoch or 0, status.epoch or 0
    is_lost = row.store_generation not in (None, status.store_generation) or closed >= row.epoch
    if is_lost:
        conditions = [COMMANDS.c.agent == row.name, ~_NEVER_SENT]
        complete_all(connection, conditions, ErrorCode.INTERRUPTED, _STORE_LOST, now)
        doubt_expired(connection, row.name, now)
    if is_lost or (seen, status.last_sequence) >= (row.epoch, row.next_number):
        begin_epoch(connection, row.name, now, above=max(row.epoch, closed, seen))
        return True
    return False


def resend_after_rollbacks(connection: sa.Connection, stands: Sequence[Stand], now: datetime) -> list[AgentRecord]:
    """Make due what agents have reported as accepted and do not have any more: their stores went back in time.

    A restored snapshot and a truncated write-ahead log keep the store's generation, so only its numbers show it. Return
    the agents to ask first: of what is known, their stands are the newest, but they may be of an earlier time. A new
    epoch for them would send the commands to a new store, although they have run in a lost one.
    """
    behind = [it for it in stands if it.first < it.row.next_number]
    suspected = {it.row.name: (it.row.epoch, it.first) for it in behind}
    found = set(connection.scalars(_HAVE_REPORTED_FROM, as_rows(suspected))) if suspected else set()
    for it in behind:
        if it.is_certain and (it.row.name in found or _is_stuck(connection, it.row, it.first)):
            _resend_from(connection, it.row, it.first, now)
    return [it.row for it in behind if it.row.name in found and not it.is_certain]


def is_conflict(row: AgentRecord, refusal: Feedback) -> bool:
    """Whether the agent has seen the number of an open command on another command, by its refusal.

    The refusal may arrive before the status that shows it, such as right after the ledger was restored from a backup.
    """
    return refusal.code is ErrorCode.SUPERSEDED and _is_of(row, refusal)


def begin_epoch_after_conflict(connection: sa.Connection, row: AgentRecord, now: datetime) -> None:
    """Renumber the agent's open commands: one of their numbers was used on the agent by another command."""
    begin_epoch(connection, row.name, now, above=row.epoch)


def begin_epochs(connection: sa.Connection, now: datetime) -> None:
    """Begin a new epoch for every agent, without any command in it."""
    time = int(now.timestamp() * 1000)
    later = sa.case((AGENTS.c.epoch >= time, AGENTS.c.epoch + 1), else_=time)
    connection.execute(AGENTS.update().values(epoch=later, next_number=1))


def _is_of(row: AgentRecord, feedback: Feedback) -> bool:
    """Whether feedback is about the current numbers; the status that announces a new store begins a new epoch."""
    is_same_store = row.store_generation in (None, feedback.store_generation)
    return is_same_store and feedback.sequence is not None and feedback.sequence.epoch == row.epoch


def _resend_from(connection: sa.Connection, row: AgentRecord, expected: int, now: datetime) -> None:
    """Make due the open commands from a number on; begin a new epoch if that number can never be sent again.

    What the agent had accepted counts as sent again, so that it is resent until the agent accepts it.
    """
    if expected >= row.next_number:
        return
    if _is_open(connection, row, expected):
        is_missing = (COMMANDS.c.number >= expected, COMMANDS.c.to_send.is_(False))
        connection.execute(COMMANDS.update().where(*_in_epoch(row), *is_missing).values(AGAIN))
    else:
        begin_epoch(connection, row.name, now, above=row.epoch)


def _is_open(connection: sa.Connection, row: AgentRecord, number: int) -> bool:
    """Whether the command with this number can still be sent."""
    return connection.scalar(sa.select(COMMANDS.c.id).where(*_in_epoch(row), COMMANDS.c.number == number)) is not None


def _is_stuck(connection: sa.Connection, row: AgentRecord, number: int) -> bool:
    """Whether commands wait on the agent for this number, which cannot be sent."""
    later = sa.select(COMMANDS.c.id).where(*_in_epoch(row), COMMANDS.c.number > number).limit(1)
    return not _is_open(connection, row, number) and connection.scalar(later) is not None


def _in_epoch(row: AgentRecord) -> tuple[sa.ColumnElement[bool], ...]:
    return COMMANDS.c.agent == row.name, COMMANDS.c.epoch == row.epoch, IS_OPEN
