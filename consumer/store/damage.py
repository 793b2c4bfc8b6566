"""What is wrong with a command store: damage on the disk, or an error that can pass."""

import sqlite3
from dataclasses import dataclass

from consumer.errors import StoreDamaged, StoreError, StoreFull, StoreLocked

__all__ = ["DAMAGE_CODES", "DISK_FULL", "NO_INODES", "StoreDamage", "is_busy", "primary_code", "store_error"]


DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
DISK_FULL = "The disk is full: no command is accepted until there is space again."
NO_INODES = "The disk has no inodes left (`df -i`): no command is accepted until files are removed."


@dataclass(frozen=True)
class StoreDamage:
    """The damage to a store: a code (snake_case, stable) and a sentence for the agent's status."""

    code: str
    message: str


def primary_code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code (sqlite.org/rescode.html); None if the error is not from SQLite itself."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another process has locked the database."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def store_error(error: sqlite3.Error) -> StoreError:
    """Return the error as one of the store.

    Only SQLITE_CORRUPT and SQLITE_NOTADB are StoreDamaged. All others can pass: no space, no memory, no file handle, a
    read error, a lock, a file system that is read-only.
    """
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(DISK_FULL)
    if is_busy(error):
        return StoreLocked("The command store is locked by another process.")
    if code in DAMAGE_CODES:
        return StoreDamaged(f"The command store is damaged: {error}.")
    return StoreError(f"The command store failed: {error}.", code="store_failed")
