"""Gives an agent's open commands the numbers of a new epoch."""

from datetime import datetime

import sqlalchemy as sa

from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, CommandState

__all__ = [
    "AGAIN",
    "REPORTED_AS_OPEN",
    "begin_epoch",
    "begun_epochs",
]


# The states of an open command that its agent has reported.
REPORTED_AS_OPEN = (CommandState.ACCEPTED, CommandState.RUNNING)
AGAIN = {
    "to_send": True,
    "stored_at": None,
    "running_at": None,
    "state": sa.case((COMMANDS.c.state.in_(REPORTED_AS_OPEN), CommandState.SENT), else_=COMMANDS.c.state),
}


_BEGUN = "acm_begun_epochs"


def begun_epochs(connection: sa.Connection) -> list[str]:
    """Return the list to which this transaction adds, from now on, the agents that begin a new epoch."""
    begun: list[str] = []
    connection.execution_options(**{_BEGUN: begun})
    return begun


def begin_epoch(connection: sa.Connection, agent: str, now: datetime, *, above: int) -> tuple[int, int]:
    """Within a transaction, renumber the open commands from 1, in their order, and make them due.

    The epoch is the current time, or later. Return the epoch, and the next number in it.
    """
    epoch = max(int(now.timestamp() * 1000), above + 1)
    # The sum hides the index by number from SQLite: it would read all of the agent's commands in that order.
    place = sa.func.row_number().over(order_by=(COMMANDS.c.epoch + 0, COMMANDS.c.number))
    order = sa.select(COMMANDS.c.id, place.label("number")).where(COMMANDS.c.agent == agent, IS_OPEN).subquery()
    renumbered = COMMANDS.update().where(COMMANDS.c.id == order.c.id)
    count = connection.execute(renumbered.values(epoch=epoch, number=order.c.number, **AGAIN)).rowcount
    connection.execute(AGENTS.update().where(AGENTS.c.name == agent).values(epoch=epoch, next_number=count + 1))
    connection.get_execution_options().get(_BEGUN, []).append(agent)
    return epoch, count + 1
