"""Pages of commands, by any filter: each reads a bounded number of rows, in an order that has an index.

A page looks at a window of that order and takes what matches the rest of the filter. So a filter that few commands
match needs no index of its own: it takes more pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from broker.ledger.commands import CommandQuery, LedgerRow, find_commands
from broker.ledger.cursors import cursor_of, place_at
from broker.ledger.tables import COMMANDS, in_state

__all__ = [
    "WINDOW",
    "CommandPage",
    "page_of_commands",
]


WINDOW = 500  # rows that a page looks at


@dataclass(frozen=True)
class CommandPage:
    """Some commands, and the cursor from which on to look for more; None at the end."""

    rows: Sequence[LedgerRow]
    cursor: str | None


@dataclass(frozen=True)
class _Order:
    """An order of commands by an index: `condition` selects a range of it, and `place` is the type of a place in it."""

    columns: tuple[sa.Column[Any], ...]
    condition: sa.ColumnElement[bool]
    place: Any
    descending: bool = True


def page_of_commands(connection: sa.Connection, query: CommandQuery, cursor: str | None, limit: int) -> CommandPage:
    """Return at most `limit` commands, newest first; those of one operation by agent. Raises InvalidArgument."""
    order = _order(query)
    seen = connection.execute(_window(order, sa.and_(sa.true(), *query.conditions()), cursor)).all()
    found: list[str] = []
    looked_at = 0
    for row in seen:
        looked_at += 1
        found += [row.id] if row.matches else []
        if len(found) == limit:
            break
    is_last = looked_at == len(seen) < WINDOW
    rows = find_commands(connection, found)
    end = None if is_last else cursor_of(tuple(seen[looked_at - 1][2:]))
    return CommandPage([rows[it] for it in found if it in rows], end)


def _window(order: _Order, matches: sa.ColumnElement[bool], cursor: str | None) -> sa.Select[Any]:
    query = sa.select(COMMANDS.c.id, matches.label("matches"), *order.columns).where(order.condition)
    if cursor is not None:
        here, there = sa.tuple_(*order.columns), sa.tuple_(*place_at(cursor, order.place))
        query = query.where(here < there if order.descending else here > there)
    return query.order_by(*(it.desc() if order.descending else it for it in order.columns)).limit(WINDOW)


def _order(query: CommandQuery) -> _Order:
    """Return the order in which the fewest commands are looked at."""
    table = COMMANDS.c
    if query.operation_id is not None:
        of_operation = table.operation_id == query.operation_id
        return _Order((table.agent, table.id), of_operation, tuple[str, str], descending=False)
    if query.is_in_order_of_agent:
        return _Order((table.epoch, table.number), table.agent == query.agent, tuple[int, int])
    conditions = [in_state(query.state)] if query.is_open and query.state is not None else []
    conditions += [table.created_at >= query.since.timestamp()] if query.since else []
    conditions += [table.created_at < query.until.timestamp()] if query.until else []
    return _Order((table.created_at, table.id), sa.and_(sa.true(), *conditions), tuple[float, str])
