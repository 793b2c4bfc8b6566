"""The audit log: what principals have changed by the API, each entry written by the transaction that changed it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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
    "AuditLogFilter",
]


_WINDOW = 500  # rows that one page of a filter looks at


@dataclass(frozen=True)
class AuditLogFilter:
    """Which entries: by principals with a text in their names, with a text in what they did, before a time."""

    principal: str = ""
    text: str = ""
    before: datetime | None = None

    @property
    def looks_at_texts(self) -> bool:
        """Whether it can leave out any entry before its time."""
        return bool(self.principal or self.text)

    def takes(self, entry: LoggedAction) -> bool:
        """Whether the texts of an entry are such ones."""
        did = (entry.action, entry.target, entry.subject)
        is_by = self.principal.lower() in entry.principal.lower()
        return is_by and any(self.text.lower() in text.lower() for text in did)


_ALL = AuditLogFilter()


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

    def page(self, cursor: str | None, limit: int, which: AuditLogFilter = _ALL) -> PageOf[LoggedAction]:
        """Return at most `limit` entries, newest first. Raises InvalidArgument for a cursor of another list.

        It looks at a bounded number of entries, so with a filter it may return fewer, also none, while there are more.
        """
        window = max(limit, _WINDOW) if which.looks_at_texts else limit
        order = (AUDIT_LOG.c.at, AUDIT_LOG.c.id)
        query = AUDIT_LOG.select().order_by(*(it.desc() for it in order)).limit(window)
        if cursor is not None:
            query = query.where(sa.tuple_(*order) < sa.tuple_(*place_at(cursor, tuple[float, str])))
        if which.before is not None:
            query = query.where(AUDIT_LOG.c.at < which.before.timestamp())
        with self._reading() as connection:
            rows = connection.execute(query).all()
        found = [(row, entry) for row in rows if which.takes(entry := _entry(row))]
        if len(found) > limit:
            found, rows = found[:limit], rows[: rows.index(found[limit][0])]
        elif len(rows) < window:
            rows = []
        end = cursor_of((rows[-1].at, rows[-1].id)) if rows else None
        return PageOf(tuple(entry for _, entry in found), end)


def _entry(row: sa.Row[Any]) -> LoggedAction:
    return LoggedAction(row.id, utc(row.at), row.principal, row.credential, row.action, row.target, row.subject)
