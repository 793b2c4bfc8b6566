"""A database that SQLAlchemy supports, opened by its URL: its tables and its transactions.

SQLite is the default. It runs in WAL mode with synchronous FULL, so that a commit survives a power loss.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from broker.errors import LedgerError
from broker.ledger.migrations import migrate
from broker.system.permissions import refuse_changeable

__all__ = [
    "Database",
    "with_absolute_path",
]


_BUSY_TIMEOUT_S = 10
_READS = "acm_reads"


class Database:
    """The ledger's database, with the tables of `metadata` created or migrated. Several processes may use the same one.

    A process opens it once: commands and enrolments share one engine. Use it as a context manager, or call `close`.
    """

    def __init__(self, url: str, metadata: sa.MetaData) -> None:
        try:
            self._engine = sa.create_engine(url)
        except (ArgumentError, NoSuchModuleError) as error:
            raise LedgerError(
                f"The ledger's URL cannot be used: {error}; write sqlite:///PATH.", code="bad_ledger_url"
            ) from None
        except ImportError as error:
            raise LedgerError(
                f"The ledger's URL needs a driver: {error}; install it beside acm.", code="driver_missing"
            ) from None
        except ValueError:  # its text may quote the password
            raise LedgerError("The ledger's URL cannot be read; write sqlite:///PATH.", code="bad_ledger_url") from None
        if self._engine.dialect.name == "sqlite":
            _make_private(self._engine.url.database or "")
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin)
        try:
            with self.transaction() as connection:
                migrate(connection, metadata)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Run the block in one transaction, committed or rolled back. Raises LedgerError if the database fails."""
        with _as_ledger_error(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read from a snapshot; does not block on writers. Raises LedgerError if the database fails."""
        with _as_ledger_error(), self._engine.connect() as connection:
            connection.execution_options(**{_READS: True})
            with connection.begin():
                yield connection


@contextmanager
def _as_ledger_error() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerError(f"The ledger failed: {str(cause).splitlines()[0]}.", code="database_failed") from error


def with_absolute_path(url: str) -> str:
    """Return the URL, for a SQLite file with its absolute path. Raises LedgerError, whose text has none of the URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its text may quote the password
        raise LedgerError("The ledger's URL cannot be parsed; write sqlite:///PATH.", code="bad_ledger_url") from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return url
    return parsed.set(database=str(Path(parsed.database).resolve())).render_as_string(hide_password=False)


def _make_private(database: str) -> None:
    """Create the file of a SQLite database for its owner only; raises ExposedFileError if others could write to it.

    A user who could write to it could command the agents, so that is refused; read permission is just removed. The
    files that SQLite creates beside it get the same mode.
    """
    if database in ("", ":memory:") or database.startswith("file:"):
        return
    path = Path(database)
    with contextlib.suppress(OSError):  # SQLite reports best why a file cannot be opened
        if not path.exists():  # an existing file is never opened here: closing it would release SQLite's locks
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        refuse_changeable(path, owners=[path.stat().st_uid])
        for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))):
            if file.exists() and file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _set_up_sqlite(connection: Any, record: object) -> None:
    # The driver's own BEGIN comes too late: _begin starts each transaction.
    connection.isolation_level = None
    for pragma in (f"busy_timeout={_BUSY_TIMEOUT_S * 1000}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A transaction that will write takes the lock first: after a read, SQLite does not wait for the lock but fails.
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
