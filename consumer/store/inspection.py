"""Inspects the database of a command store before it is opened: whether it is damaged, or was never finished."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from enum import Enum, auto
from pathlib import Path
from typing import Any

from consumer.errors import StoreDamaged, StoreError
from consumer.store.damage import DAMAGE_CODES, primary_code, store_error
from consumer.store.keys import COLUMNS, repair_keys
from consumer.store.lock_wait import BUSY_TIMEOUT_S, LockWait
from consumer.store.rows import SENTINEL

__all__ = ["DATABASE", "StoreCondition", "check_pages", "inspect_store", "open_store_database"]


DATABASE = "cache.db"
_FILES = {DATABASE + suffix for suffix in ("", "-wal", "-shm", "-journal")}
# A page that cannot be read now is a line of the check's result, as a damaged one is.
_UNREADABLE = re.compile(r"unable to get the page|failed to get page")
_ROW = f"SELECT {COLUMNS} FROM Cache WHERE key = ?"  # noqa: S608 - each column, as the name of one can be damaged
_ERROR_CODE = re.compile(r"error code=(\d+)")


class StoreCondition(Enum):
    """What is in the directory of a command store."""

    MISSING = auto()
    EMPTY = auto()
    """Nothing was ever stored, as after a kill while an earlier version created the store."""
    WHOLE = auto()


@contextlib.contextmanager
def open_store_database(store: Path, options: str, timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
    """Open the database of the store in this directory with these options of SQLite's URI; raises sqlite3.Error."""
    uri = f"{(store / DATABASE).absolute().as_uri()}?{options}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)) as connection:
        connection.text_factory = _as_text
        yield connection


def _as_text(content: bytes) -> str:
    """Return a text of the database; what is none there became so on the disk, and matches nothing."""
    return content.decode(errors="replace")


def inspect_store(store: Path, wait: LockWait, is_known_setting: Callable[[str, Any], bool]) -> StoreCondition:
    """Return the condition of the store in this directory, which no other agent may be using.

    Drops unknown settings, which diskcache would use unchecked. Raises StoreDamaged if SQLite calls the database
    damaged, or if it is not one that the agent finished; StoreError and OSError if it cannot be read now, whatever its
    content.
    """
    names = _names(store)
    if names is None:
        return StoreCondition.MISSING
    # SQLite itself would remove the log of an empty database, with all that is in it.
    if DATABASE in names and (store / DATABASE).stat().st_size:
        try:
            condition = wait(lambda: _inspect_database(store, is_known_setting))
        except sqlite3.Error as error:
            raise store_error(error) from error
        except UnicodeDecodeError as error:  # of SQLite's message, which quotes a damaged schema
            raise StoreDamaged(f"The command store is damaged: {error.object!r}.") from error
    elif any((store / name).stat().st_size for name in names):
        raise _not_ours(store)
    else:
        condition = StoreCondition.EMPTY
    if condition is StoreCondition.EMPTY and names - _FILES:
        raise _not_ours(store)
    return condition


def _names(store: Path) -> set[str] | None:
    """Return the names in the directory, None if it does not exist; raises OSError."""
    try:
        return {path.name for path in store.iterdir()}
    except NotADirectoryError:
        raise _not_ours(store) from None
    except FileNotFoundError:
        return None


def _inspect_database(store: Path, is_known_setting: Callable[[str, Any], bool]) -> StoreCondition:
    with open_store_database(store, "mode=rw") as connection:
        _check(connection)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        try:
            if "Settings" in tables:
                _drop_settings(connection, is_known_setting)
            if "Cache" in tables and connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchone():
                if connection.execute(_ROW, (SENTINEL,)).fetchone():
                    return StoreCondition.WHOLE
                raise _not_ours(store)
        except sqlite3.OperationalError as error:
            if primary_code(error) == sqlite3.SQLITE_ERROR:  # such as a column that is missing
                raise _not_ours(store) from error
            raise
    if tables - {"Cache", "Settings"}:
        raise _not_ours(store)
    return StoreCondition.EMPTY


def _not_ours(store: Path) -> StoreDamaged:
    return StoreDamaged(f"What is in {store} is not a command store that the agent has finished.", code="store_foreign")


def _check(connection: sqlite3.Connection) -> None:
    """Raise StoreDamaged if SQLite finds damage, StoreError if it could not read each page; repair the indexes."""
    check_pages(connection)
    try:
        _check_by(connection, "integrity_check")
    except StoreDamaged:  # the rows are whole, so an index can be made from them
        repair_keys(connection)
        _check_by(connection, "integrity_check")


def check_pages(connection: sqlite3.Connection) -> None:
    """Raise StoreDamaged if SQLite finds damage other than of an index, StoreError if it could not read each page."""
    _check_by(connection, "quick_check")


def _check_by(connection: sqlite3.Connection, pragma: str) -> None:
    found = [text for (text,) in connection.execute(f"PRAGMA {pragma}")]
    if found == ["ok"]:
        return
    for text in found:
        code = _ERROR_CODE.search(text)
        cannot_read = int(code[1]) & 0xFF not in DAMAGE_CODES if code else _UNREADABLE.search(text)
        if cannot_read:
            raise StoreError(f"The command store cannot be read: {text}.", code="store_failed")
    raise StoreDamaged(f"The command store is damaged: {found[0]}.")


def _drop_settings(connection: sqlite3.Connection, is_known: Callable[[str, Any], bool]) -> None:
    for key, value in connection.execute("SELECT key, value FROM Settings").fetchall():
        if not is_known(key, value):
            connection.execute("DELETE FROM Settings WHERE key = ?", (key,))
