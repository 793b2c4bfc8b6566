"""Unmatched results: they answer no open command. The newest of each agent are stored for operators to inspect."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.messages import Feedback, JsonObject
from broker.ledger.cursors import cursor_of, place_at
from broker.ledger.damage import decoded
from broker.ledger.tables import STRAY_RESULTS, utc

__all__ = [
    "UnmatchedResult",
    "page_of_unmatched",
    "store_unmatched",
]


_MAX_PER_AGENT = 100  # an agent can invent any number of ids
_MAX_CHARACTERS_PER_AGENT = 4 << 20


@dataclass(frozen=True)
class UnmatchedResult:
    """A result that answers no open command; `result` is empty if it was pruned. Times are UTC."""

    agent: str
    command_id: str
    digest: str
    received_at: datetime
    result: JsonObject


def page_of_unmatched(
    connection: sa.Connection, cursor: str | None, limit: int, agent: str | None
) -> tuple[list[UnmatchedResult], str | None]:
    """Return at most `limit` unmatched results, newest first, and the cursor for more; None at the end.

    Only those of `agent` unless it is None. Raises InvalidArgument for a cursor of another list.
    """
    table = STRAY_RESULTS.c
    order = (table.received_at, table.agent, table.command_id, table.digest)
    query = STRAY_RESULTS.select().order_by(*(it.desc() for it in order)).limit(limit)
    if agent is not None:
        query = query.where(table.agent == agent)
    if cursor is not None:
        query = query.where(sa.tuple_(*order) < sa.tuple_(*place_at(cursor, tuple[float, str, str, str])))
    rows = connection.execute(query).all()
    end = cursor_of(tuple(getattr(rows[-1], it.name) for it in order)) if len(rows) == limit else None
    return list(map(_unmatched, rows)), end


def _unmatched(row: sa.Row[Any]) -> UnmatchedResult:
    result = decoded(row.body, dict) or {}
    return UnmatchedResult(row.agent, row.command_id, row.digest, utc(row.received_at), result)


def store_unmatched(connection: sa.Connection, agent: str, results: Sequence[Feedback], received_at: float) -> None:
    """Within a transaction, store the results that are new, and delete the agent's oldest beyond the limits.

    `received_at` in seconds since 1970.
    """
    if not results:
        return
    newest = {(result.command_id, result.digest): result for result in results[-_MAX_PER_AGENT:]}
    of_agent = STRAY_RESULTS.c.agent == agent
    ids = [command_id for command_id, _ in newest]
    query = sa.select(STRAY_RESULTS.c.command_id, STRAY_RESULTS.c.digest).where(
        of_agent, STRAY_RESULTS.c.command_id.in_(ids)
    )
    for command_id, digest in connection.execute(query):
        newest.pop((command_id, digest), None)
    if newest:
        connection.execute(STRAY_RESULTS.insert(), [_row(agent, result, received_at) for result in newest.values()])
        _delete_oldest(connection, agent)


def _row(agent: str, result: Feedback, received_at: float) -> dict[str, object]:
    return {
        "agent": agent,
        "command_id": result.command_id,
        "digest": result.digest,
        "body": encode([result]).decode(),
        "received_at": received_at,
    }


def _delete_oldest(connection: sa.Connection, agent: str) -> None:
    table = STRAY_RESULTS.c
    newest_first = (table.received_at.desc(), table.command_id, table.digest)
    size = sa.func.sum(sa.func.length(table.body)).over(order_by=newest_first)
    place = sa.func.row_number().over(order_by=newest_first)
    kept = sa.select(table.command_id, table.digest, size.label("size"), place.label("place"))
    ranked = kept.where(table.agent == agent).subquery()
    too_many = sa.or_(ranked.c.place > _MAX_PER_AGENT, ranked.c.size > _MAX_CHARACTERS_PER_AGENT)
    for command_id, digest in connection.execute(sa.select(ranked.c.command_id, ranked.c.digest).where(too_many)).all():
        key = (table.agent == agent, table.command_id == command_id, table.digest == digest)
        connection.execute(STRAY_RESULTS.delete().where(*key))
