"""Unmatched results: they answer no open command. The newest of each agent are stored for operators to inspect."""

from collections.abc import Sequence

import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.messages import Feedback
from broker.ledger.tables import STRAY_RESULTS

__all__ = [
    "store_unmatched",
]


_MAX_PER_AGENT = 100  # an agent can invent any number of ids


def store_unmatched(
    connection: sa.Connection, agent: str, results: Sequence[Feedback], received_at: float
) -> list[Feedback]:
    """Within a transaction, store the results that are new, return those, and delete the oldest beyond the limit.

    `received_at` in seconds since 1970.
    """
    if not results:
        return []
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
    return list(newest.values())


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
    order = (table.received_at.desc(), table.command_id, table.digest)
    old = sa.select(table.command_id, table.digest).where(table.agent == agent).order_by(*order).offset(_MAX_PER_AGENT)
    for command_id, digest in connection.execute(old.limit(2 * _MAX_PER_AGENT)).all():
        key = (table.agent == agent, table.command_id == command_id, table.digest == digest)
        connection.execute(STRAY_RESULTS.delete().where(*key))
