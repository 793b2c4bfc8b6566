"""Pages of lists that are in the order of their ids, newest first."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from broker.ledger.cursors import cursor_of, place_at

__all__ = [
    "newest_by_id",
]


def newest_by_id(
    connection: sa.Connection, query: sa.Select[Any], ids: sa.Column[str], cursor: str | None, limit: int
) -> tuple[Sequence[sa.Row[Any]], str | None]:
    """Return at most `limit` rows of a query, and the cursor for more; None at the end.

    The order is that of `ids`, whose index it uses: they are UUIDs of version 7, so they are in order of time. Raises
    InvalidArgument for a cursor of another list.
    """
    if cursor is not None:
        query = query.where(ids < place_at(cursor, tuple[str])[0])
    rows = connection.execute(query.order_by(ids.desc()).limit(limit)).all()
    return rows, cursor_of((rows[-1].id,)) if len(rows) == limit else None
