"""Durable rows on diskcache: bytes under text keys, committed together. No other module imports diskcache."""

import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from diskcache import Cache, Disk, Timeout
from diskcache.core import DBNAME, DEFAULT_SETTINGS, METADATA

from consumer.errors import StoreError, StoreLocked
from consumer.store.damage import store_error
from consumer.store.lock_wait import BUSY_TIMEOUT_S, LockWait
from consumer.store.rows import RAW

__all__ = ["DurableRows", "is_known_setting"]


_T = TypeVar("_T")
_SETTINGS = {
    "sqlite_synchronous": 2,
    "sqlite_journal_mode": "wal",
    "sqlite_auto_vacuum": 2,
    "sqlite_mmap_size": 0,
    "sqlite_cache_size": 1024,  # pages: 4 MiB, as fast as the 32 MiB of the default
    "disk_min_file_size": 2**30,
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "timeout": BUSY_TIMEOUT_S,
}
_KEYS = "SELECT key, raw FROM Cache WHERE key >= ? AND key < ? ORDER BY key"
_ITEMS = "SELECT key, mode, filename, value FROM Cache WHERE key >= ? AND key < ? AND raw = ? ORDER BY key"
_SPACE = ("freelist_count", "auto_vacuum", "page_count")
_INCREMENTAL = 2  # sqlite.org/pragma.html#pragma_auto_vacuum
_KEPT_PAGES = 256
_KEPT_LOG_BYTES = 1 << 20
_FOREIGN_ROW = "The command store holds a row that the agent did not write; it was refused."


class _BytesDisk(Disk):  # type: ignore[misc]
    """Stores bytes under text keys and refuses everything else, so nothing read from the disk is ever unpickled.

    diskcache unpickles keys and values, and removes the files that rows name; our rows never name one.
    """

    def get(self, key: Any, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise StoreError(_FOREIGN_ROW, code="foreign_row")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if not isinstance(value, bytes) or read:
            raise StoreError("Only bytes may be stored.")
        return 0, RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if mode != RAW or filename is not None or not isinstance(value, bytes):
            raise StoreError(_FOREIGN_ROW, code="foreign_row")
        return value

    def remove(self, file_path: str) -> None:
        """Leave the file alone."""


class _OneWriterCache(Cache):  # type: ignore[misc]
    """A cache that never waits by itself: diskcache's own waits for a lock take a minute, or have no end."""

    def __init__(self, directory: str, **settings: Any) -> None:
        try:
            super().__init__(directory, disk=_BytesDisk, **settings)
        except BaseException:
            self.close()
            raise

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor]:
        execute: Callable[..., sqlite3.Cursor] = self._sql
        return execute

    @contextlib.contextmanager
    def transaction(self, wait: LockWait) -> Iterator[None]:
        """Commit everything inside together. Unlike diskcache's, it raises SQLite's own error, and always ends."""
        connection: sqlite3.Connection = self._con
        wait(lambda: connection.execute("BEGIN IMMEDIATE"))
        self._txn_id: int | None = threading.get_ident()  # diskcache's own writes join the transaction
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            raise
        finally:
            self._txn_id = None


class _Errors:
    """Raises what SQLite and diskcache report as errors of the store.

    A class: a generator as a context manager costs three times as much, ten times a command.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise store_error(error) from error
        if isinstance(error, Timeout):
            raise StoreLocked("The command store is locked by another process.") from error


_errors = _Errors()


class DurableRows:
    """The rows in one directory. Writes outside `transaction` commit (fsync) one by one.

    All methods raise StoreError, StoreFull, StoreLocked and StoreDamaged.
    """

    def __init__(self, directory: Path, wait: LockWait | None = None) -> None:
        self._wait = wait or LockWait()
        self._log = directory / (DBNAME + "-wal")
        self._files = dict.fromkeys((directory / DBNAME, self._log), (0, 0))
        if os.path.expandvars(directory) != str(directory):
            raise StoreError(  # diskcache would expand it, and store everything elsewhere
                f"The path {directory} names an environment variable: use another one.", code="state_directory_unusable"
            )
        self._is_open = True
        try:
            with _errors:
                self._cache = self._wait(lambda: _OneWriterCache(str(directory), **_SETTINGS))
        except OSError as error:
            raise StoreError(f"The command store cannot be used: {error.strerror}.", code="store_failed") from error

    def __contains__(self, key: str) -> bool:
        with _errors:
            return key in self._opened()

    def __getitem__(self, key: str) -> bytes:
        with _errors:
            value: bytes = self._opened()[key]
        return value

    def __setitem__(self, key: str, value: bytes) -> None:
        with _errors:
            self._opened().set(key, value)

    def __delitem__(self, key: str) -> None:
        with _errors:
            del self._opened()[key]

    def add(self, key: str, value: bytes) -> None:
        """Write a new row; raises StoreError if the key exists."""
        with _errors:
            is_new = self._opened().add(key, value)
        if not is_new:
            raise StoreError(f"The key {key} already exists.", code="key_taken")

    def discard(self, key: str) -> None:
        """Delete the row, if it exists."""
        with _errors:
            self._opened().delete(key)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with this prefix, sorted."""
        cache = self._opened()
        with _errors:
            found = cache._sql(_KEYS, (prefix, prefix + chr(sys.maxunicode))).fetchall()
            return [cache.disk.get(key, raw) for key, raw in found]

    def items(self, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        """Yield the rows whose keys begin with this prefix, sorted, by one query; None for one that is not ours."""
        with _errors:
            for key, mode, filename, value in self._opened()._sql(_ITEMS, (prefix, prefix + chr(sys.maxunicode), RAW)):
                is_ours = mode == RAW and filename is None and isinstance(value, bytes)
                yield key, value if is_ours else None

    def truncate_log(self) -> None:
        """Move the write-ahead log into the database, and give its space back."""
        with _errors:
            self._opened()._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def release_space(self) -> bool:
        """Give free pages back to the file system, some at a time; return whether more are left."""
        sql = self._opened()._sql
        with _errors:
            ((free,), (mode,), (pages,)) = (sql(f"PRAGMA {it}").fetchone() for it in _SPACE)
            if mode == _INCREMENTAL and free > _KEPT_PAGES:
                sql(f"PRAGMA incremental_vacuum({_KEPT_PAGES})").fetchall()  # each step of it frees one page
                return True
        if mode != _INCREMENTAL and free > max(_KEPT_PAGES, pages // 2):
            # The database of an earlier version. SQLite has to write it again, which takes room, and no reader.
            with contextlib.suppress(sqlite3.Error):
                sql("VACUUM")
            self.truncate_log()
        elif _size(self._log) > _KEPT_LOG_BYTES:  # else it costs three fsyncs, at each start too, for next to nothing
            self.truncate_log()
        return False

    def read(self, key: str, decode: Callable[[bytes], _T]) -> _T:
        """Return the decoded row; raises StoreError if it does not exist or cannot be decoded."""
        try:
            return decode(self[key])
        except (KeyError, ValueError) as error:
            raise StoreError(
                f"The row {key} of the command store cannot be read: {error}.", code="row_unreadable"
            ) from error

    @property
    def size_bytes(self) -> int:
        """The size of the files together."""
        return sum(map(_size, self._files))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside together, or nothing if it raises.

        Raises StoreError also if the files were deleted or replaced meanwhile: then the commit is lost with them.
        """
        with _errors, self._opened().transaction(self._wait):
            self._remember_files()
            yield
        self._refuse_replaced()

    def _remember_files(self) -> None:
        for path, known in self._files.items():
            self._files[path] = known if any(known) else _identity(path)

    def _refuse_replaced(self) -> None:
        for path, known in self._files.items():
            if _identity(path) != known:
                raise StoreError(
                    f"The command store was deleted or replaced while the agent ran: {path} is not its file any more.",
                    code="store_replaced",
                )

    def close(self) -> None:
        """Release the files."""
        self._cache.close()
        self._is_open = False

    def _opened(self) -> Cache:
        # diskcache would silently reopen the files, although another process may have locked them.
        if not self._is_open:
            raise StoreError("The command store is closed.", code="store_closed")
        return self._cache


def _identity(path: Path) -> tuple[int, int]:
    """Return what names the file at this path; zeros if there is none. Raises StoreError if it cannot be determined."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    except OSError as error:
        raise StoreError(f"The command store cannot be used: {path}: {error.strerror}.", code="store_failed") from error
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_known_setting(key: str, value: Any) -> bool:
    """Whether diskcache may find this setting in the file: it uses them all as pragmas or arguments, unchecked."""
    if key in METADATA or value == _SETTINGS.get(key):
        return True
    return key in DEFAULT_SETTINGS and isinstance(value, int)
