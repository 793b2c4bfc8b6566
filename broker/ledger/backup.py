"""Backups of a ledger in SQLite while programs use it, and their restoration. PostgreSQL has its own tools for that."""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from urllib.parse import quote

import sqlalchemy as sa

from broker.errors import LedgerError
from broker.ledger import sqlite
from broker.ledger.failures import as_ledger_error, ledger_damaged
from broker.ledger.location import LedgerNotFound, LedgerUrlError, sqlite_file
from broker.ledger.ownership import holds_ledger
from broker.ledger.server_lock import no_server_on
from broker.system.files import keep_owner, replacing, sync_file

__all__ = [
    "Contents",
    "Restored",
    "back_up",
    "check",
    "restore",
]


_COUNTS = "SELECT (SELECT count(*) FROM commands), (SELECT count(*) FROM agents)"
_PAGES_PER_STEP = 1000
_PATIENCE_S = 10.0
_LOCKED_RANGE = 0x40000000, 512  # the bytes that SQLite locks in a database's file (its os.h)
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class Contents:
    """What a ledger was found to have, and the size of its file."""

    commands: int
    agents: int
    size: int


@dataclass(frozen=True)
class Restored:
    """A restored ledger: what it has, how many open commands were completed, and where the ledger before it is kept."""

    contents: Contents
    interrupted: int
    kept: Path | None


def check(url: sa.URL) -> Contents:
    """Read the whole file of a ledger, also while programs use it. Raises LedgerError if it is damaged or none."""
    file = _file_of(url, "check it with `pg_amcheck`")
    _require_ledger(file)
    with as_ledger_error(url), closing(_connect(file)) as connection, _snapshot(connection):
        return _contents(connection, file, file)


def back_up(url: sa.URL, target: Path, *, replace: bool = False) -> Contents:
    """Write a ledger as it is now into one file of mode 0600, also while programs use it, and check that.

    Raises LedgerError, also for a file that exists unless it is to be replaced; then no file is left or changed.
    """
    file = _file_of(url, "back it up with `pg_dump --format=custom`")
    _require_ledger(file)
    _refuse_target(target, file, replace=replace)
    with _as_error_of(target), replacing(target) as part:
        _create_private(part)
        with closing(_connect(part)) as copy, as_ledger_error(_url(target)):
            with closing(_connect(file)) as connection, _snapshot(connection):
                connection.backup(copy, pages=_PAGES_PER_STEP)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file
            contents = _contents(copy, part, file)
        sync_file(part)
    return contents


def restore(url: sa.URL, source: Path, settle: Callable[[str], int], now: datetime) -> Restored:
    """Put a backup in the place of the ledger, which is kept beside it.

    `settle` completes the open commands in the ledger with this URL, which is the new one before it is in its place,
    and returns their number. Raises LedgerError, also if a program uses the ledger; then the ledger is as it was.
    """
    file = _file_of(url, "restore it with `pg_restore`, then call `acm ledger restored`", must_exist=False)
    _refuse_source(source, file)
    with _as_error_of(file), no_server_on(file), _unused(file), replacing(file) as part:
        _create_private(part)
        shutil.copyfile(source, part)
        with as_ledger_error(_url(source)), closing(_connect(part)) as connection:
            contents = _contents(connection, part, source)
        interrupted = settle(f"sqlite:///{part}")
        with as_ledger_error(_url(file)), closing(_connect(part)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        with part.open("rb") as written:
            keep_owner(written.fileno(), file)
        sync_file(part)
        kept = _keep_beside(file, now)
    return Restored(contents, interrupted, kept)


def _file_of(url: sa.URL, otherwise: str, *, must_exist: bool = True) -> Path:
    file = sqlite_file(url)
    if file is None:
        raise LedgerError(f"This command is for a ledger in SQLite. For PostgreSQL, {otherwise}.", code="not_sqlite")
    if must_exist and not os.path.lexists(file):
        raise LedgerNotFound(
            f"There is no ledger at {file}: name it by --ledger, ACM_LEDGER or the configuration file."
        )
    return Path(os.path.realpath(file))  # a link to it stays, and SQLite's other files are beside the file itself


def _url(file: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(file))


def _require_ledger(file: Path, shown: Path | None = None) -> None:
    """Raise LedgerError unless the file holds a ledger; it is not changed."""
    shown = shown or file
    with as_ledger_error(_url(shown)):
        if not sqlite.look_at(file, lambda connection: holds_ledger(connection, str(shown)), Event()):
            raise LedgerUrlError(f"{shown} is empty, and not a ledger.", code="not_a_ledger")


def _contents(connection: sqlite3.Connection, file: Path, shown: Path) -> Contents:
    """Read the whole database, and count. Raises LedgerError if it is damaged."""
    if (damage := sqlite.damage_in(connection.cursor(), wholly=True)) is not None:
        raise ledger_damaged(str(shown), damage)
    commands, agents = connection.execute(_COUNTS).fetchone()
    return Contents(commands, agents, file.stat().st_size)


def _refuse_target(target: Path, file: Path, *, replace: bool) -> None:
    own = [file, *(file.with_name(file.name + suffix) for suffix in _BESIDE)]
    if target.resolve() in [path.resolve() for path in own]:
        raise LedgerError(f"{target} belongs to the ledger itself: name another file.", code="backup_onto_ledger")
    if os.path.lexists(target) and (target.is_symlink() or not target.is_file()):
        raise LedgerError(f"{target} exists and is not a regular file: name another one.", code="file_exists")
    if os.path.lexists(target) and not replace:
        raise LedgerError(
            f"{target} exists already: name another file, or replace it with --force.", code="file_exists"
        )


def _refuse_source(source: Path, file: Path) -> None:
    if not source.is_file():
        raise LedgerNotFound(f"There is no backup at {source}.")
    if source.resolve() == file.resolve():
        raise LedgerError(f"{source} is the ledger itself: name a backup.", code="not_a_backup")
    if beside := next((name for name in (f"{source}{suffix}" for suffix in _BESIDE) if os.path.lexists(name)), None):
        raise LedgerError(
            f"{source} was copied while it was open, with {beside}: make one file of both with "
            f"`acm ledger backup NEW-FILE --ledger sqlite:///{source.absolute()}`, and restore that.",
            code="not_a_backup",
        )
    _require_ledger(source)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(file))}?mode=rw", uri=True, timeout=_PATIENCE_S, isolation_level=None
    )
    connection.execute("PRAGMA synchronous=FULL")
    return connection


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Read one state of the database in the block, while others write."""
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    yield
    connection.execute("ROLLBACK")


def _create_private(part: Path) -> None:
    for suffix in _BESIDE:  # left by a crash, SQLite would take it for this file's
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{part}{suffix}")
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


@contextmanager
def _unused(file: Path) -> Iterator[None]:
    """Keep other programs from opening a database meanwhile. Raises LedgerError if one has it open."""
    if not os.path.lexists(file):
        yield
        return
    with file.open("rb+") as opened:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED_RANGE[1], _LOCKED_RANGE[0])
        except (BlockingIOError, PermissionError):
            raise LedgerError(
                f"A program has the ledger {file} open: stop `acm server`, `acm enroll-server` and all others "
                f"(`fuser {file}` shows them), then try again.",
                code="ledger_in_use",
            ) from None
        yield


def _keep_beside(file: Path, now: datetime) -> Path | None:
    """Keep the ledger under another name, with what belongs to it, until a new one takes its place."""
    kept = file.with_name(f"{file.name}.before-{now:%Y%m%dT%H%M%SZ}")
    has_ledger = os.path.lexists(file)
    if has_ledger:
        os.link(file, kept)
    for suffix in _BESIDE:  # SQLite would take them for the new one's
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{file}{suffix}", f"{kept}{suffix}")
    return kept if has_ledger else None


@contextmanager
def _as_error_of(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerError(f"{file} cannot be written: {error.strerror or error}.", code="file_not_written") from error
