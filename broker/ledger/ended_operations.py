"""Notes that an operation is completed: with the last of its commands, in the same transaction."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from broker.ledger.event_types import EventType
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.noted_events import note
from broker.ledger.stored_results import CommandColumns
from broker.ledger.tables import COMMANDS, IS_OPEN, OPERATIONS

__all__ = [
    "note_ended_operations",
]


_OF_IT = COMMANDS.c.operation_id == OPERATIONS.c.id
# The server sends in the order of the agents' names, so the last ones are open the longest, and found first.
_AN_OPEN_ONE = (
    sa.select(COMMANDS.c.id).where(_OF_IT, IS_OPEN).order_by(COMMANDS.c.agent.desc()).limit(1).scalar_subquery()
)
_WITHOUT_OPEN = sa.select(OPERATIONS.c.id).where(OPERATIONS.c.id.in_(given_keys()), _AN_OPEN_ONE.is_(None))
_WRITTEN = sa.select(sa.func.count()).select_from(COMMANDS).where(_OF_IT).scalar_subquery()
_WHOLE = sa.select(OPERATIONS.c.id).where(OPERATIONS.c.id.in_(given_keys()), OPERATIONS.c.size == _WRITTEN)


def note_ended_operations(connection: sa.Connection, completed: Iterable[CommandColumns], now: datetime) -> None:
    """Within a transaction that has completed these commands, note the operations that have ended with them.

    Commands without an operation cost nothing, others one statement. One of which not all commands are written yet has
    not ended: its sender still writes, or was stopped.
    """
    last = {command.operation_id: command for command in completed if command.operation_id is not None}
    if not last:
        return
    ended = list(connection.scalars(_WITHOUT_OPEN, as_keys(last)))
    for operation_id in connection.scalars(_WHOLE, as_keys(ended)) if ended else ():
        command = last[operation_id]
        note(connection, EventType.OPERATION_COMPLETED, command.agent, command.id, now=now)
