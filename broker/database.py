"""One database by URL, in any that SQLAlchemy speaks: its tables, and transactions that fail with one sentence.

SQLite is the default; it commits with synchronous FULL in WAL mode, so that a commit survives a power loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from broker.errors import LedgerError
from broker.migrations import bring_up_to_date

__all__ = ["Database", "LedgerError"]

_BUSY_TIMEOUT_S = 10


class Database:
    """The database of the ledger, with the tables of `metadata`. Several processes may use the same one."""

    def __init__(self, url: str, metadata: sa.MetaData) -> None:
        try:
            self._engine = sa.create_engine(url)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise LedgerError(f"The ledger's URL cannot be used: {error}; write sqlite:///PATH.") from None
        except ValueError:  # its text may quote the password
            raise LedgerError("The ledger's URL cannot be read; write sqlite:///PATH.") from None
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_immediately)
        try:
            with self.transaction() as connection:
                bring_up_to_date(connection, metadata)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the database connections back."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Commit what the block does, or nothing of it; raises LedgerError when the database fails."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise LedgerError(f"The ledger failed: {str(cause).splitlines()[0]}.") from error


def _set_up_sqlite(connection: Any, record: object) -> None:
    # The driver's own BEGIN comes too late: _begin_immediately says when a transaction starts.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_TIMEOUT_S * 1000}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediately(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
