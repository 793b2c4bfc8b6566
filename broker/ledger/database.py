"""The ledger's database, in SQLite or PostgreSQL, opened by its URL: its tables and its transactions."""

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Event
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from broker.ledger import postgresql, sqlite
from broker.ledger.failures import as_ledger_error
from broker.ledger.location import LedgerNotFound, LedgerUrlError, ledger_url, place_of, sqlite_file
from broker.ledger.migrations import is_current, is_empty, migrate

__all__ = [
    "Database",
]


_TRANSACTION_S = 60.0  # longer than any turn; one that lasts longer is of a database that does not answer


class Database:
    """The ledger's database, with the tables of `metadata` created or migrated. Several processes may use the same one.

    A process opens it once: commands and enrolments share one engine. Use it as a context manager, or call `close`.
    Without `create`, a ledger that does not exist is LedgerNotFound, and nothing is created.
    """

    def __init__(self, url: str, metadata: sa.MetaData, *, create: bool = True) -> None:
        self.url = ledger_url(url)
        self._stopping = Event()
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._connections = postgresql.Connections()
        file = sqlite_file(self.url)
        if file is not None:
            if not create and not file.exists():
                raise _not_found(self.url)
            sqlite.create_private(file)
        self._engine = self._new_engine()
        self._file: sqlite.DatabaseFile | None = None
        try:
            self._bring_up_to_date(metadata, create=create)
            self._file = sqlite.DatabaseFile(file) if file is not None else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def stop_waiting(self) -> None:
        """Let transactions that wait for a lock or an answer end soon, with LedgerError; for the end of the process.

        May be called from a signal handler, while a transaction of the same thread waits.
        """
        self._stopping.set()
        self._connections.hang_up_soon()

    def answering_within(self, limit_s: float) -> AbstractContextManager[None]:
        """Within the block, end what waits for an answer of PostgreSQL after `limit_s` seconds, with LedgerError."""
        return nullcontext() if self.is_sqlite else self._connections.limited(limit_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Run the block in one transaction, committed or rolled back. Raises LedgerError if the database fails.

        A conflict with another transaction is TransactionConflict: decorate the caller with `retry_conflicts`.
        """
        with as_ledger_error(self.url), self._connected() as connection, connection.begin():
            yield connection
        if self._file is not None:
            self._file.refuse_replaced()  # before anybody acts on what was committed

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read from a snapshot; does not block on writers. Raises LedgerError if the database fails."""
        with as_ledger_error(self.url), self._connected() as connection:
            options = {sqlite.READS: True} if self.is_sqlite else postgresql.reading_options()
            with connection.execution_options(**options).begin():
                yield connection

    @contextmanager
    def own_connection(self) -> Iterator[sa.Connection]:
        """Yield a connection outside of transactions, for a lock that lasts. Raises LedgerError if it fails."""
        with as_ledger_error(self.url), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def vacuum(self) -> None:
        """Rewrite a SQLite file without its free pages; PostgreSQL cleans up by itself. Raises LedgerError."""
        if self.is_sqlite:
            with as_ledger_error(self.url), self._engine.connect() as connection:
                raw = connection.connection.cursor()
                try:
                    sqlite.wait_for_lock(lambda: raw.execute("VACUUM"), self._stopping)
                    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.Error as error:
                    raise sa.exc.DBAPIError.instance("VACUUM", None, error, sqlite3.Error) from error

    def free_bytes(self) -> int:
        """Return the size of the free pages in a SQLite file; 0 for PostgreSQL, which cleans up by itself."""
        if not self.is_sqlite:
            return 0
        with self.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())

    def _new_engine(self) -> sa.Engine:
        try:
            if self.is_sqlite:
                engine = sa.create_engine(self.url)
                sqlite.set_up(engine, self._stopping)
                return engine
            arguments = postgresql.connect_arguments(self.url)
            engine = sa.create_engine(self.url.set(query={}), connect_args=arguments, pool_pre_ping=True)
            self._connections.watch(engine)
            return engine
        except ImportError:
            raise LedgerUrlError(
                "A ledger in PostgreSQL needs its driver: `make install EXTRA=postgresql` installs psycopg.",
                code="driver_missing",
            ) from None

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with self.answering_within(_TRANSACTION_S), self._engine.connect() as connection:
            yield connection

    def _bring_up_to_date(self, metadata: sa.MetaData, *, create: bool) -> None:
        """Create or migrate the tables; one that is up to date is only read, so that a reader waits for no writer."""
        with self.reading() as connection:
            if is_current(connection, metadata):
                return
            if not create and is_empty(connection):
                raise _not_found(self.url)
        with as_ledger_error(self.url), self._engine.begin() as connection:
            if not self.is_sqlite:
                postgresql.lock_migrations(connection)
            migrate(connection, metadata)


def _not_found(url: sa.URL) -> LedgerNotFound:
    return LedgerNotFound(
        f"There is no ledger at {place_of(url)}: name the server's by --ledger, ACM_LEDGER or the configuration file; "
        "`acm server` creates one."
    )
