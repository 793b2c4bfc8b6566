"""Sequence numbers of an agent's commands: contiguous from 1 within an epoch.

A new epoch begins when the agent has lost its store or was restored to an earlier one, and when it has seen numbers
that this ledger, restored from a backup, has not used yet.
"""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from broker.contract.messages import Feedback, SequenceNumber, Status
from broker.contract.states import ErrorCode
from broker.ledger.agents import get_or_create, update_agent
from broker.ledger.completion import complete_all
from broker.ledger.records import AgentRecord
from broker.ledger.renumbering import AGAIN, REPORTED_AS_OPEN, begin_epoch
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, SERVER, CommandState

__all__ = [
    "begin_epoch_after_conflict",
    "begin_epochs",
    "follow_store",
    "is_conflict",
    "next_sequence",
    "resend_after_rollback",
    "resend_from_gap",
]


_STORE_LOST = "The agent lost its command store; the command may have run or not. Check, then send a new one."
_NEVER_SENT = COMMANDS.c.state == CommandState.QUEUED
# What the agent reported itself: a command that the server completed may never have reached it.
_REPORTED = sa.or_(
    COMMANDS.c.state.in_(REPORTED_AS_OPEN),
    sa.and_(COMMANDS.c.state == CommandState.COMPLETED, COMMANDS.c.digest != SERVER),
)


def next_sequence(connection: sa.Connection, agent: str, now: datetime) -> SequenceNumber:
    """Return the agent's next sequence number, and count it as used."""
    row = get_or_create(connection, agent, now)
    update_agent(connection, agent, next_number=row.next_number + 1, forgotten_at=None)
    return SequenceNumber(row.epoch, row.next_number)


def resend_from_gap(connection: sa.Connection, row: AgentRecord, gaps: Iterable[Feedback], now: datetime) -> None:
    """Make due the commands that the agent is missing, by the newest of its gaps; the others are out of date."""
    valid = [gap for gap in gaps if _is_of(row, gap) and gap.expected is not None]
    if valid and valid[-1].expected is not None:
        _resend_from(connection, row, valid[-1].expected, now)


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
    if is_lost or (seen, status.last_sequence) >= (row.epoch, row.next_number):
        begin_epoch(connection, row.name, now, above=max(row.epoch, closed, seen))
        return True
    return False


def resend_after_rollback(connection: sa.Connection, row: AgentRecord, status: Status, now: datetime) -> None:
    """Make due what the agent has reported as accepted and does not have any more: its store went back in time.

    A restored snapshot and a truncated write-ahead log keep the store's generation, so only its numbers show it.
    """
    expected = status.last_sequence + 1 if status.epoch == row.epoch else 1
    of_epoch = (COMMANDS.c.agent == row.name, COMMANDS.c.epoch == row.epoch, COMMANDS.c.number >= expected)
    if connection.scalar(sa.select(COMMANDS.c.id).where(*of_epoch, _REPORTED).limit(1)) is not None:
        _resend_from(connection, row, expected, now)


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
    of_epoch = (COMMANDS.c.agent == row.name, COMMANDS.c.epoch == row.epoch, IS_OPEN)
    if connection.scalar(sa.select(COMMANDS.c.id).where(*of_epoch, COMMANDS.c.number == expected)) is None:
        begin_epoch(connection, row.name, now, above=row.epoch)
    else:
        missing = COMMANDS.update().where(*of_epoch, COMMANDS.c.number >= expected, COMMANDS.c.to_send.is_(False))
        connection.execute(missing.values(AGAIN))
