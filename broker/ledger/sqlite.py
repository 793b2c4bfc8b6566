"""The ledger in SQLite: a private file in WAL mode with synchronous FULL, so that a commit survives a power loss."""

import contextlib
import math
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from broker.errors import LedgerError
from broker.ledger.bytes_of_text import text_of_bytes
from broker.ledger.failures import held_by_another
from broker.ledger.location import beside
from broker.system.permissions import refuse_changeable

__all__ = [
    "DatabaseFile",
    "LedgerReplaced",
    "create_private",
    "damage_in",
    "is_empty_file",
    "log_bytes",
    "look_at",
    "reader_url",
    "refuse_old_library",
    "set_up",
    "wait_for_lock",
]


_LEAST_VERSION = (3, 38)  # of the operators for JSON (broker.ledger.many_rows)
_PATIENCE_S = 10.0
_MOST_DAMAGE = 100
_OF_ONE_ROW = re.compile(r"\S+ value (in|missing from) |CHECK constraint failed")
_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine: a few milliseconds
# SQLite itself waits no longer than this for a lock, because signals are not handled meanwhile.
_BUSY_TIMEOUT_MS = 250


class LedgerReplaced(LedgerError):
    """The ledger's file was deleted or replaced while it was open."""

    code = "ledger_replaced"


class DatabaseFile:
    """The file of an open database. Once it is deleted or replaced, what is committed is lost with it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._opened = self._identity()

    def refuse_replaced(self) -> None:
        """Raise LedgerReplaced if the file is no longer the one that was opened."""
        found = self._identity()
        if found is not None and self._opened is not None and found != self._opened:
            raise LedgerReplaced(
                f"The ledger {self._file} was deleted or replaced while it was open, and with it what was stored last: "
                "restart this program."
            )

    def _identity(self) -> tuple[int, int] | None:
        """Return what names the file, zeros if it does not exist; None if that cannot be determined now."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return 0, 0
        except OSError:
            return None
        return found.st_dev, found.st_ino


def log_bytes(file: Path) -> int:
    """Return the size of the write-ahead log of a database."""
    log = beside(file, "-wal")
    return log.stat().st_size if log.exists() else 0


def refuse_old_library() -> None:
    """Raise LedgerError if the library SQLite of this Python is too old; its statements would fail one by one."""
    if sqlite3.sqlite_version_info < _LEAST_VERSION:
        raise LedgerError(
            f"A ledger in SQLite needs SQLite 3.38, and this Python uses {sqlite3.sqlite_version}: use another Python, "
            "or a ledger in PostgreSQL.",
            code="sqlite_too_old",
        )


def damage_in(cursor: Any, *, limit_s: float = math.inf, wholly: bool = False) -> str | None:
    """Return what SQLite finds damaged first, or None; `wholly` compares each index with its table, too.

    A value that its column cannot have is damage of one row, which broker.ledger.damage sets aside. After `limit_s`
    seconds the rest is not read. Raises sqlite3.Error for what SQLite cannot even read.
    """
    end = monotonic() + limit_s
    cursor.connection.set_progress_handler(lambda: monotonic() >= end, _STEPS_BETWEEN_LOOKS)
    try:
        rows = cursor.execute(f"PRAGMA {'integrity' if wholly else 'quick'}_check({_MOST_DAMAGE})").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        cursor.connection.set_progress_handler(None, 0)
    found = (" ".join(row[0].split()) for row in rows)
    return next((damage for damage in found if damage != "ok" and not _OF_ONE_ROW.match(damage)), None)


def is_empty_file(file: Path) -> bool:
    """Whether there is no file, or one that has just been created."""
    try:
        return file.stat().st_size == 0
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # SQLite reports best why it cannot be read


def look_at(file: Path, look: Callable[[sa.Connection], bool], stopping: Event) -> bool:
    """Return whether `look` finds a ledger in a database of whatever program; no file is changed or created.

    True if that cannot be determined without the changes that SQLite makes after a crash.
    """
    if _in_use(file):
        with contextlib.suppress(_Unreadable):
            return _look(file, look, stopping, "mode=ro")
    return _look(file, look, stopping, "immutable=1") or _has(file, "-wal") or _has(file, "-journal")


def reader_url(url: sa.URL, file: Path) -> sa.URL:
    """Return the URL for a connection that only reads.

    If the write-ahead log is there, its connection leaves it as it is. If not, SQLite creates and removes one.
    """
    if not _in_use(file) or (url.database or "").startswith("file:"):
        return url
    return url.set(database=f"file:{quote(str(file))}", query={**url.query, "mode": "ro", "uri": "true"})


def _in_use(file: Path) -> bool:
    """Whether a process has the database open in WAL mode, or was killed while it had."""
    return _has(file, "-wal") and _has(file, "-shm")


def _has(file: Path, suffix: str) -> bool:
    """Whether SQLite's file is beside a database; not if that cannot be known."""
    return os.path.exists(beside(file, suffix))


class _Unreadable(Exception):
    """The database cannot be read without changing it."""


def _look(file: Path, look: Callable[[sa.Connection], bool], stopping: Event, mode: str) -> bool:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(file))}?{mode}", uri=True, timeout=_BUSY_TIMEOUT_MS / 1000)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    found: list[bool] = []
    try:
        with engine.connect() as connection:
            wait_for_lock(lambda: found.append(look(connection)), stopping)
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) and mode == "mode=ro":
            raise _Unreadable from error
        raise
    return found[-1]


def create_private(file: Path) -> None:
    """Create the file of a database for its owner only; raises ExposedFileError if others could write to it.

    A user who could write to it could command the agents, so that is refused; read permission is just removed. The
    files that SQLite creates beside it get the same mode.
    """
    with contextlib.suppress(OSError):  # SQLite reports best why a file cannot be opened
        if not file.exists():  # an existing file is never opened here: closing it would release SQLite's locks
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not file.is_file():
            return
        refuse_changeable(file, owners=[file.stat().st_uid])
        for path in (file, beside(file, "-wal"), beside(file, "-shm")):
            if path.exists() and path.stat().st_mode & 0o077:
                path.chmod(0o600)


def set_up(engine: sa.Engine, stopping: Event, *, reads: Callable[[sa.Connection], bool], read_only: bool) -> None:
    """Set up each connection of the engine, and begin its transactions, unlocked those that only read (`reads`).

    Locks are not waited for once `stopping`.
    """

    def connect(connection: Any, record: object) -> None:
        connection.text_factory = text_of_bytes
        connection.isolation_level = None  # the driver's own BEGIN comes too late: `begin` starts each transaction
        for pragma in (f"busy_timeout={_BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        mode = "query_only=ON" if read_only else "journal_mode=WAL"
        wait_for_lock(lambda: connection.execute(f"PRAGMA {mode}"), stopping)

    def begin(connection: sa.Connection) -> None:
        # A transaction that will write takes the lock first: after a read, SQLite does not wait for the lock but fails.
        take = _begin_reading if reads(connection) else _begin_writing
        wait_for_lock(lambda: take(connection), stopping)

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


def _begin_writing(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_reading(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
    try:
        connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1").all()  # the snapshot begins with it
    except BaseException:
        connection.exec_driver_sql("ROLLBACK")
        raise


def wait_for_lock(take: Callable[[], object], stopping: Event) -> None:
    """Call `take` until it finds SQLite's lock free, for at most ten seconds, and no longer once `stopping` is set."""
    end = monotonic() + _PATIENCE_S
    while True:
        try:
            take()
        except Exception as error:
            cause = error.orig if isinstance(error, OperationalError) else error
            if not held_by_another(cause) or monotonic() >= end or stopping.wait(0.02):
                raise
        else:
            return
