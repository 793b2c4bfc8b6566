"""The ledger's database, in SQLite or PostgreSQL, opened by its URL: its tables and its transactions."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa

from broker.errors import LedgerError
from broker.ledger import postgresql, sqlite
from broker.ledger.changes import Changes, PostgresqlChanges, SqliteChanges
from broker.ledger.failures import as_ledger_error, ledger_damaged
from broker.ledger.location import LedgerNotFound, LedgerUrlError, ledger_url, place_of, sqlite_file
from broker.ledger.migrations import is_current, migrate
from broker.ledger.noted_events import begin_noting, write_noted
from broker.ledger.ownership import holds_ledger

__all__ = [
    "Database",
]


_READS = "acm_reads"
_TRANSACTION_S = 60.0  # longer than any turn; one that lasts longer is of a database that does not answer


class Database:
    """The ledger's database, with the tables of `metadata` created or migrated. Several processes may use the same one.

    A process opens it once: commands and enrolments share one engine. Use it as a context manager, or call `close`.
    Without `create`, a ledger that does not exist is LedgerNotFound, and nothing is created. With `read_only`, nothing
    is changed at all, and a ledger of an older version is LedgerError. The database of another program is
    LedgerUrlError, before anything is changed. `tell` gets the progress of a migration, in sentences.
    """

    def __init__(
        self,
        url: str,
        metadata: sa.MetaData,
        *,
        create: bool = True,
        read_only: bool = False,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tell = tell
        self.commits = 0
        """How many transactions of this process have been committed by `transaction`; a few less if threads race."""
        self.url = ledger_url(url)
        self._may_create, self._read_only = create and not read_only, read_only
        self._stopping = Event()
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            sqlite.refuse_old_library()
        self._connections = postgresql.Connections()
        file = sqlite_file(self.url)
        if file is not None:
            self._refuse_other_file(file)
            if not read_only:
                sqlite.create_private(file)
        self._engine = self._new_engine()
        self._file: sqlite.DatabaseFile | None = None
        try:
            self._bring_up_to_date(metadata)
            self._file = sqlite.DatabaseFile(file) if file is not None else None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        self._connections.close()

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
        """Run the block in one transaction, committed with the events that it notes, or rolled back.

        Raises LedgerError if the database fails. A conflict with another transaction is TransactionConflict: decorate
        the caller with `retry_conflicts`.
        """
        with as_ledger_error(self.url), self._connected() as connection, connection.begin():
            begin_noting(connection)
            yield connection
            write_noted(connection)
        self.commits += 1
        self.refuse_replaced()  # before anybody acts on what was committed

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read from a snapshot; does not block on writers. Raises LedgerError if the database fails."""
        with as_ledger_error(self.url), self._connected() as connection:
            connection.execution_options(**{_READS: True})
            with connection.begin():
                yield connection

    @contextmanager
    def lasting_transaction(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, without a bound, for a lock that lasts. Raises LedgerError if it fails.

        Only a transaction has one connection of PostgreSQL for itself if there is a pooler.
        """
        with as_ledger_error(self.url), self._engine.connect() as connection:
            connection.begin()
            yield connection

    def changes(self) -> Changes:
        """Return what notices whatever is committed from now on, by whichever program. Raises LedgerError.

        It is for one thread, which closes it before the database.
        """
        if not self.is_sqlite:
            return PostgresqlChanges(self._own_connection, self.answering_within)
        file = sqlite_file(self.url)
        with as_ledger_error(self.url):
            return Changes() if file is None else SqliteChanges(file)

    def vacuum(self) -> None:
        """Rewrite a SQLite file without its free pages; PostgreSQL cleans up by itself. Raises LedgerError."""
        if self.is_sqlite:
            with as_ledger_error(self.url), self._engine.connect() as connection:
                raw = connection.connection.cursor()
                sqlite.wait_for_lock(lambda: raw.execute("VACUUM"), self._stopping)
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def refuse_damaged(self, limit_s: float) -> None:
        """Read a SQLite file for at most `limit_s` seconds; raises LedgerError if it is damaged. Not for PostgreSQL."""
        if self.is_sqlite:
            with as_ledger_error(self.url), self._engine.connect() as connection:
                if (damage := sqlite.damage_in(connection.connection.cursor(), limit_s=limit_s)) is not None:
                    raise ledger_damaged(place_of(self.url), damage)

    def refuse_replaced(self) -> None:
        """Raise LedgerReplaced if the file of a SQLite database was deleted or replaced since it was opened."""
        if self._file is not None:
            self._file.refuse_replaced()

    def size_bytes(self) -> int:
        """Return the size of the database: in SQLite that of its pages and of its write-ahead log."""
        with self.reading() as connection:
            if not self.is_sqlite:
                return int(connection.scalar(sa.text("SELECT pg_database_size(current_database())")) or 0)
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            size = int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        file = sqlite_file(self.url)
        return size if file is None else size + sqlite.log_bytes(file)

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
                file = sqlite_file(self.url) if self._read_only else None
                engine = sa.create_engine(sqlite.reader_url(self.url, file) if file else self.url)
                sqlite.set_up(engine, self._stopping, reads=_reads, read_only=self._read_only)
                return engine
            arguments = postgresql.connect_arguments(self.url)
            engine = sa.create_engine(self.url.set(query={}), connect_args=arguments)
            self._connections.watch(engine)
            postgresql.begin_transactions(engine, self.url, _reads)
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

    def _own_connection(self) -> Any:
        """Return a connection of the driver that is not of the pool. Raises LedgerError."""
        with as_ledger_error(self.url):
            pooled = self._engine.connect().connection  # `raw_connection` would raise the driver's own errors
        own = pooled.driver_connection
        pooled.detach()
        return own

    def _refuse_other_file(self, file: Path) -> None:
        """Raise what `_holds_ledger` does; SQLite changes a file, and those beside it, as soon as it has it open."""
        with as_ledger_error(self.url):
            if sqlite.is_empty_file(file) or not sqlite.look_at(file, self._holds_ledger, self._stopping):
                self._require_right_to_create()

    def _bring_up_to_date(self, metadata: sa.MetaData) -> None:
        """Create or migrate the tables; one that is up to date is only read, so that a reader waits for no writer."""
        with self.reading() as connection:
            if not self.is_sqlite:
                postgresql.refuse_encoding(connection, place_of(self.url))
            if not self._holds_ledger(connection):
                self._require_right_to_create()
            elif is_current(connection, metadata):
                return
            elif self._read_only:
                raise _older(self.url)
        began = last = monotonic()
        while (done := self._migrate(metadata)) is not None:
            self._tell(f"Migrated the ledger {place_of(self.url)}: {done} ({monotonic() - last:.1f} s).")
            last = monotonic()
        if last > began:
            self._tell(f"The ledger {place_of(self.url)} was migrated in {last - began:.1f} s.")

    def _migrate(self, metadata: sa.MetaData) -> str | None:
        """Create the tables, or migrate them by one step; return what was done, or None at the end."""
        with as_ledger_error(self.url), self._engine.begin() as connection:
            if not self.is_sqlite:
                postgresql.lock_migrations(connection)
            return migrate(connection, metadata)

    def _holds_ledger(self, connection: sa.Connection) -> bool:
        return holds_ledger(connection, place_of(self.url))

    def _require_right_to_create(self) -> None:
        if not self._may_create:
            raise LedgerNotFound(
                f"There is no ledger at {place_of(self.url)}: name the server's by --ledger, ACM_LEDGER or the "
                "configuration file; `acm server` creates one."
            )


def _reads(connection: sa.Connection) -> bool:
    return bool(connection.get_execution_options().get(_READS, False))


def _older(url: sa.URL) -> LedgerError:
    return LedgerError(
        f"The ledger {place_of(url)} is of an older version, and this command only reads: restart `acm server` with "
        "this version, which migrates it.",
        code="older_schema",
    )
