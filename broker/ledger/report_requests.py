"""Requests to report: what an agent seems to have lost is not believed until a status answers one of them."""

from collections.abc import Iterable

import sqlalchemy as sa

from broker.ledger.ids import new_id
from broker.ledger.many_rows import as_rows, update_each
from broker.ledger.records import AgentRecord
from broker.ledger.tables import AGENTS

__all__ = [
    "request_reports",
]


_REQUEST = update_each(AGENTS.c.name, AGENTS.c.request)


def request_reports(connection: sa.Connection, rows: Iterable[AgentRecord]) -> dict[str, str]:
    """Return the ids of the requests that these agents must answer, by agent; an agent without one gets one."""
    requests = {row.name: row.request or new_id() for row in rows}
    if requests:
        connection.execute(_REQUEST, as_rows({name: (request,) for name, request in requests.items()}))
    return requests
