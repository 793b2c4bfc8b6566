"""Failures of the ledger's database as sentences: what is wrong, where, and what to do."""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from time import sleep
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, OperationalError, SQLAlchemyError

from broker.errors import LedgerError
from broker.ledger.location import LedgerUrlError, place_of, sqlite_file
from broker.system.retry import growing_wait

__all__ = [
    "DatabaseUnavailable",
    "RefusedByDatabase",
    "TransactionConflict",
    "as_ledger_error",
    "held_by_another",
    "ledger_damaged",
    "retry_conflicts",
]


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_ATTEMPTS = 6
_FIRST_WAIT_S = 0.05
_LITTLE_ROOM = 1 << 20  # SQLite needs room for its log and its index beside the rows
# PostgreSQL's codes (its manual, appendix A): of two transactions that are in each other's way one is rolled back.
_CONFLICTS = frozenset({"40001", "40P01", "23505"})
_LIMIT, _TRIGGER = "54", "P0"  # a value is beyond a limit of the program, or was refused by a trigger
_DAMAGE = frozenset({"XX001", "XX002"})
_TIMEOUTS = frozenset({"55P03", "57014"})
_UNREACHABLE = ("08", "57P", "53300")


class DatabaseUnavailable(LedgerError):
    """The ledger's database does not answer now, or keeps a lock; the same call may succeed later."""

    code = "ledger_not_reachable"


class RefusedByDatabase(LedgerError):
    """The database refuses what would be stored, and would always: it breaks a constraint, or the encoding."""

    code = "refused_by_database"


class TransactionConflict(LedgerError):
    """Another transaction was in the way again and again; nothing was changed."""

    code = "transaction_conflict"


def retry_conflicts(method: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a method that is one transaction: it is called again after a conflict, at most six times in about 2 s.

    Whatever the method did before is rolled back with its transaction. A test checks that every method that opens one
    is decorated.
    """

    @wraps(method)
    def call(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        for attempt in range(_ATTEMPTS - 1):
            try:
                return method(*arguments, **named)
            except TransactionConflict:
                sleep(growing_wait(attempt, first_s=_FIRST_WAIT_S))
        return method(*arguments, **named)

    return call


@contextmanager
def as_ledger_error(url: sa.URL) -> Iterator[None]:
    """Raise what the database raises in the block as a LedgerError with one sentence."""
    try:
        yield
    except (UnicodeEncodeError, OverflowError) as error:  # of the driver, which SQLAlchemy passes on
        raise RefusedByDatabase(f"The ledger {place_of(url)} does not take this: {_first_line(error)}.") from error
    except sqlite3.Error as error:
        raise _sqlite_failure(error, url) from error
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, sqlite3.Error):
            raise _sqlite_failure(cause, url) from error
        raise _server_failure(error, cause, url) from error
    except UnicodeDecodeError as error:  # SQLite quotes its damaged schema
        raise ledger_damaged(place_of(url), error) from error


def held_by_another(error: BaseException | None) -> bool:
    """Whether SQLite's lock is held by another connection."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def ledger_damaged(place: str, damage: object) -> LedgerError:
    """Return the error for a ledger whose file is damaged."""
    return LedgerError(
        f"The ledger {place} is damaged ({damage}); restore a backup (docs/operations.md).", code="ledger_damaged"
    )


def _sqlite_failure(error: sqlite3.Error, url: sa.URL) -> LedgerError:
    """Tell SQLite's failures apart by its result codes, and by what the file system says of them."""
    place, file = place_of(url), sqlite_file(url)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if held_by_another(error):
        return DatabaseUnavailable(
            f"The ledger {place} is locked by another process; try again, and find it with `fuser {place}`.",
            code="ledger_locked",
        )
    if code == sqlite3.SQLITE_NOTADB:
        return LedgerUrlError(f"{place} is not a ledger, and not a SQLite database.", code="not_a_ledger")
    if code == sqlite3.SQLITE_CORRUPT:
        return ledger_damaged(place, error)
    if code in _ABOUT_FILES and file is not None:
        return _file_failure(file, code, error)
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
        return RefusedByDatabase(f"The ledger {place} does not take this: {_first_line(error)}.")
    return LedgerError(f"The ledger {place} failed: {_first_line(error)}.", code="database_failed")


_ABOUT_FILES = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOLFS,
    }
)


def _file_failure(file: Path, code: int, error: sqlite3.Error) -> LedgerError:
    if os.path.isdir(file):  # False also if that cannot be known
        return LedgerUrlError(f"{file} is a directory; name the ledger's file in it.", code="not_a_ledger")
    if not os.path.isdir(file.parent):
        return LedgerError(
            f"The ledger {file} cannot be opened: its directory does not exist.", code="ledger_cannot_be_opened"
        )
    if code == sqlite3.SQLITE_FULL or (code != sqlite3.SQLITE_READONLY and not _has_room(file.parent)):
        return LedgerError(
            f"The ledger {file} finds no room: make room in its file system or the quota of its user, then try again.",
            code="ledger_full",
        )
    if code == sqlite3.SQLITE_READONLY or _is_read_only(file.parent):
        return LedgerError(
            f"The ledger {file} cannot be written: make the file and its directory writable for this user.",
            code="ledger_read_only",
        )
    if code == sqlite3.SQLITE_IOERR:
        return LedgerError(
            f"The ledger {file} cannot be read or written ({error}): look for errors of its disk with `dmesg`.",
            code="ledger_io_error",
        )
    return LedgerError(
        f"The ledger {file} cannot be opened ({error}): this user must be able to read and write the file and its "
        "directory.",
        code="ledger_cannot_be_opened",
    )


def _has_room(directory: Path) -> bool:
    """Whether a small file finds room: no free space shows a quota, and SQLite calls its end an I/O error."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, _LITTLE_ROOM)
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def _is_read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _server_failure(error: SQLAlchemyError, cause: BaseException, url: sa.URL) -> LedgerError:
    place, state = place_of(url), getattr(cause, "sqlstate", None)
    if state in _DAMAGE:
        return ledger_damaged(place, _first_line(cause))
    if state in _CONFLICTS:
        return TransactionConflict(f"The ledger {place} could not be changed: {_first_line(cause)}; try again.")
    if isinstance(error, DataError | IntegrityError) or _is_about_data(error, state or ""):
        return RefusedByDatabase(f"The ledger {place} does not take this: {_first_line(cause)}.")
    if state in _TIMEOUTS:
        return DatabaseUnavailable(
            f"The ledger {place} did not answer in time ({_first_line(cause)}); pg_stat_activity shows who holds its "
            "locks.",
            code="ledger_locked",
        )
    if isinstance(error, OperationalError) and (state is None or state.startswith(_UNREACHABLE)):
        return DatabaseUnavailable(f"The ledger {place} cannot be reached: {_first_line(cause)}.")
    return LedgerError(f"The ledger {place} failed: {_first_line(cause)}.", code="database_failed")


def _is_about_data(error: SQLAlchemyError, state: str) -> bool:
    """Whether a value is refused. The limit of a COMMIT is that of the queue of notifications, which is full."""
    is_commit = getattr(error, "statement", None) is None
    return state.startswith(_TRIGGER) or (state.startswith(_LIMIT) and not is_commit)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")
