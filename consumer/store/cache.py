"""Durable rows on diskcache: bytes under text keys, committed together. No other module imports diskcache."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from diskcache import Cache, Disk
from diskcache.core import DEFAULT_SETTINGS, METADATA

from consumer.errors import StoreError, StoreFull
from consumer.store.damage import DISK_FULL
from consumer.store.rows import RAW

__all__ = ["DurableRows", "is_known_setting"]


_T = TypeVar("_T")
_SETTINGS = {
    "sqlite_synchronous": 2,
    "sqlite_journal_mode": "wal",
    "sqlite_auto_vacuum": 0,
    "sqlite_mmap_size": 0,
    "disk_min_file_size": 2**30,
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "timeout": 5,
}
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


class DurableRows:
    """The rows in one directory. Writes outside `transaction` commit (fsync) one by one."""

    def __init__(self, directory: Path) -> None:
        self._cache = Cache(str(directory), disk=_BytesDisk, **_SETTINGS)
        self._is_open = True

    def __contains__(self, key: str) -> bool:
        return key in self._opened()

    def __getitem__(self, key: str) -> bytes:
        value: bytes = self._opened()[key]
        return value

    def __setitem__(self, key: str, value: bytes) -> None:
        self._opened().set(key, value)

    def __delitem__(self, key: str) -> None:
        del self._opened()[key]

    def add(self, key: str, value: bytes) -> None:
        """Write a new row; raises StoreError if the key exists."""
        if not self._opened().add(key, value):
            raise StoreError(f"The key {key} already exists.", code="key_taken")

    def discard(self, key: str) -> None:
        """Delete the row, if it exists."""
        self._opened().delete(key)

    def keys(self) -> list[str]:
        """Return all keys, sorted."""
        return sorted(self._opened().iterkeys())

    def read(self, key: str, decode: Callable[[bytes], _T]) -> _T:
        """Return the decoded row; raises StoreError if it does not exist or cannot be decoded."""
        try:
            return decode(self[key])
        except (sqlite3.Error, KeyError, ValueError, msgspec.DecodeError) as error:
            raise StoreError(
                f"The row {key} of the command store cannot be read: {error}.", code="row_unreadable"
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside together, or nothing if it raises; raises StoreFull and StoreError."""
        try:
            with self._opened().transact(retry=True):
                yield
        except sqlite3.Error as error:
            if "full" in str(error):
                raise StoreFull(DISK_FULL) from error
            raise StoreError(f"The command store failed: {error}.", code="store_failed") from error

    def close(self) -> None:
        """Release the files."""
        self._cache.close()
        self._is_open = False

    def _opened(self) -> Cache:
        # diskcache would silently reopen the files, although another process may have locked them.
        if not self._is_open:
            raise StoreError("The command store is closed.", code="store_closed")
        return self._cache


def is_known_setting(key: str, value: Any) -> bool:
    """Whether diskcache may find this setting in the file: it uses them all as pragmas or arguments, unchecked."""
    if key in _SETTINGS or key in METADATA:
        return True
    return key in DEFAULT_SETTINGS and isinstance(value, int)
