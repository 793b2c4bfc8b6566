"""What `acm doctor` asks of a ledger beyond what everybody reads from it. Nothing of it is changed."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from urllib.parse import quote

import sqlalchemy as sa

from broker.errors import LedgerError
from broker.ledger import sqlite
from broker.ledger.database import Database
from broker.ledger.failures import as_ledger_error
from broker.ledger.location import place_of, sqlite_file
from broker.ledger.tables import (
    AGENTS,
    COMMANDS,
    DAMAGED_ROWS,
    IS_DUE,
    REFUSED_MESSAGES,
    SERVERS,
    CommandState,
    in_state,
    moment,
)

__all__ = [
    "WaitingCommands",
    "count_rows_set_aside",
    "newest_time",
    "refuse_unwritable",
    "waiting_commands",
]


_LOCK_MS = 250
_MAY_WRITE = (
    "SELECT current_setting('default_transaction_read_only') = 'off' AND NOT pg_is_in_recovery()"
    " AND has_table_privilege('commands', 'INSERT, UPDATE, DELETE')"
)


@dataclass(frozen=True)
class WaitingCommands:
    """How many commands no server has sent, though they are due, and the id of the oldest."""

    count: int
    oldest: str


def refuse_unwritable(database: Database) -> None:
    """Raise LedgerError if this user cannot write to the ledger now, also while another process keeps its lock.

    It takes the lock of SQLite for a moment, and changes nothing.
    """
    file = sqlite_file(database.url)
    if file is not None:
        with as_ledger_error(database.url):
            _take_lock(file)
    elif not _may_write(database):
        raise LedgerError(
            f"The ledger {place_of(database.url)} only reads: it is a standby, or this user may not write to its "
            "tables.",
            code="ledger_read_only",
        )


def _may_write(database: Database) -> bool:
    with database.reading() as connection:
        return bool(connection.scalar(sa.text(_MAY_WRITE)))


def _take_lock(file: Path) -> None:
    url = f"file:{quote(str(file))}?mode=rw"
    with closing(sqlite3.connect(url, uri=True, timeout=_LOCK_MS / 1000, isolation_level=None)) as connection:
        sqlite.wait_for_lock(lambda: connection.execute("BEGIN IMMEDIATE"), Event())
        connection.execute("ROLLBACK")


def count_rows_set_aside(database: Database) -> tuple[int, int]:
    """Return how many damaged rows, and how many messages that the database refuses, wait for an operator.

    Raises LedgerError.
    """
    with database.reading() as connection:
        counts = [connection.scalar(sa.select(sa.func.count()).select_from(it)) for it in _SET_ASIDE]
    return counts[0] or 0, counts[1] or 0


_SET_ASIDE = (DAMAGED_ROWS, REFUSED_MESSAGES)


def newest_time(database: Database) -> datetime | None:
    """Return the latest time that a server or `acm send` has stored, None in an empty ledger; raises LedgerError."""
    columns = (COMMANDS.c.created_at, AGENTS.c.seen_at, SERVERS.c.started_at)
    with database.reading() as connection:
        times = [connection.scalar(sa.select(sa.func.max(column))) for column in columns]
    return max((time for time in map(moment, times) if time is not None), default=None)


def waiting_commands(database: Database, before: datetime) -> WaitingCommands | None:
    """Return the commands that were added before this time and are still queued, or None; raises LedgerError."""
    is_waiting = sa.and_(in_state(CommandState.QUEUED), IS_DUE, COMMANDS.c.created_at < before.timestamp())
    oldest = sa.select(COMMANDS.c.id).where(is_waiting).order_by(COMMANDS.c.created_at).limit(1)
    with database.reading() as connection:
        count = connection.scalar(sa.select(sa.func.count()).where(is_waiting)) or 0
        first = connection.scalar(oldest)
    return WaitingCommands(count, first) if first is not None else None
