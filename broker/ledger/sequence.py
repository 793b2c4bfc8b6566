"""Sequence numbers of an agent's commands: contiguous from 1 within an epoch.

A new epoch begins when the agent has lost its store or was restored to an earlier one, and when it has seen numbers
that this ledger, restored from a backup, has not used yet.
"""

from datetime import datetime

import sqlalchemy as sa

from broker.contract.messages import Feedback, SequenceNumber, Status
from broker.contract.states import ErrorCode
from broker.ledger.agents import get_or_create, update_agent
from broker.ledger.completion import complete_all
from broker.ledger.tables import COMMANDS, IS_OPEN, CommandState

__all__ = [
    "begin_epoch_after_conflict",
    "detect_lost_store",
    "detect_restored_ledger",
    "next_sequence",
    "resend_from_gap",
]


_STORE_LOST = "The agent lost its command store; the command may have run or not. Check, then send a new one."
_NEVER_SENT = COMMANDS.c.state == CommandState.QUEUED


def next_sequence(connection: sa.Connection, agent: str, now: datetime) -> SequenceNumber:
    """Return the agent's next sequence number, and count it as used."""
    row = get_or_create(connection, agent, now)
    update_agent(connection, agent, next_number=row.next_number + 1)
    return SequenceNumber(row.epoch, row.next_number)


def resend_from_gap(connection: sa.Connection, agent: str, gap: Feedback, now: datetime) -> None:
    """Make due the commands that the agent is missing, from the number that it expects."""
    row = get_or_create(connection, agent, now)
    is_same_store = row.store_generation in (None, gap.store_generation)
    if not is_same_store or gap.sequence is None or gap.expected is None or gap.sequence.epoch != row.epoch:
        return  # the status that announces the new store begins a new epoch
    of_epoch = (COMMANDS.c.agent == agent, COMMANDS.c.epoch == row.epoch)
    state = sa.select(COMMANDS.c.state).where(*of_epoch, COMMANDS.c.number == gap.expected)
    if connection.scalar(state) == CommandState.COMPLETED:
        # The agent went back, as after a restored snapshot: this number can never be sent again.
        _begin_epoch(connection, agent, now, above=row.epoch)
    else:
        missing = COMMANDS.update().where(*of_epoch, COMMANDS.c.number >= gap.expected, IS_OPEN)
        connection.execute(missing.values(to_send=True))


def detect_lost_store(connection: sa.Connection, status: Status, now: datetime) -> None:
    """Complete the commands that the agent may have held in a store that it lost, and begin a new epoch."""
    row, agent, generation = get_or_create(connection, status.agent, now), status.agent, status.store_generation
    closed = status.closed_epoch or 0
    if row.store_generation not in (None, generation) or closed >= row.epoch:
        # Whether the commands that the agent may have received have run is unknown.
        complete_all(connection, [COMMANDS.c.agent == agent, ~_NEVER_SENT], ErrorCode.INTERRUPTED, _STORE_LOST, now)
        _begin_epoch(connection, agent, now, above=max(row.epoch, closed))
    update_agent(connection, agent, store_generation=generation)


def detect_restored_ledger(connection: sa.Connection, status: Status, now: datetime) -> None:
    """Begin a new epoch if the agent has seen numbers that this ledger, restored from a backup, has not used."""
    row = get_or_create(connection, status.agent, now)
    if status.epoch is not None and (status.epoch, status.last_sequence) >= (row.epoch, row.next_number):
        _begin_epoch(connection, status.agent, now, above=max(row.epoch, status.epoch))


def begin_epoch_after_conflict(connection: sa.Connection, agent: str, refusal: Feedback, now: datetime) -> None:
    """Begin a new epoch if the agent has seen the number of an open command on another command.

    The refusal may arrive before the status that shows it, such as right after the ledger was restored from a backup.
    """
    row = get_or_create(connection, agent, now)
    is_current = refusal.sequence is None or refusal.sequence.epoch == row.epoch
    if refusal.code is ErrorCode.SUPERSEDED and is_current:
        _begin_epoch(connection, agent, now, above=row.epoch)


def _begin_epoch(connection: sa.Connection, agent: str, now: datetime, *, above: int) -> None:
    """Renumber the open commands from 1, in their order, and make them due. The epoch is the current time, or later."""
    epoch = max(int(now.timestamp() * 1000), above + 1)
    open_ids = sa.select(COMMANDS.c.id).where(COMMANDS.c.agent == agent, IS_OPEN)
    ids = connection.scalars(open_ids.order_by(COMMANDS.c.epoch, COMMANDS.c.number)).all()
    for number, command_id in enumerate(ids, start=1):
        renumbered = COMMANDS.update().where(COMMANDS.c.id == command_id)
        connection.execute(renumbered.values(epoch=epoch, number=number, to_send=True))
    update_agent(connection, agent, epoch=epoch, next_number=len(ids) + 1)
