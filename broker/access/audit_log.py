"""The audit log: what principals have changed by the API, each entry written by the transaction that changed it."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from broker.access.grants import Credential
from broker.access.models import LoggedAction
from broker.access.tables import AUDIT_LOG
from broker.fleet.models import PageOf
from broker.ledger.cursors import cursor_of, place_at
from broker.ledger.database import Database
from broker.ledger.ids import new_id
from broker.ledger.tables import utc

__all__ = [
    "AuditLog",
]


class AuditLog:
    """The audit log in the ledger's database. Raises LedgerError if that fails."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._reading = database.reading
        self._now = now

    def add(self, connection: sa.Connection, by: Credential, action: str, target: str, subject: str) -> None:
        """Within the transaction that changes something, record who did it."""
        values = {"principal": by.principal.name, "credential": by.id, "action": action, "target": target}
        values |= {"id": new_id(), "subject": subject}
        connection.execute(AUDIT_LOG.insert().values(at=self._now().timestamp(), **values))

    def page(self, cursor: str | None, limit: int) -> PageOf[LoggedAction]:
        """Return at most `limit` entries, newest first. Raises InvalidArgument for a cursor of another list."""
        order = (AUDIT_LOG.c.at, AUDIT_LOG.c.id)
        query = AUDIT_LOG.select().order_by(*(it.desc() for it in order)).limit(limit)
        if cursor is not None:
            query = query.where(sa.tuple_(*order) < sa.tuple_(*place_at(cursor, tuple[float, str])))
        with self._reading() as connection:
            rows = connection.execute(query).all()
        end = cursor_of((rows[-1].at, rows[-1].id)) if len(rows) == limit else None
        return PageOf(
            tuple(
                LoggedAction(row.id, utc(row.at), row.principal, row.credential, row.action, row.target, row.subject)
                for row in rows
            ),
            end,
        )
