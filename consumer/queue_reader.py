"""Reads a command store from outside, while an agent may be using it."""

import contextlib
import sqlite3
from pathlib import Path

import msgspec

from consumer.errors import StoreError
from consumer.ports import StoredCommand
from consumer.store_rows import COMMAND, HEAD, RAW, RESULT, Head, assemble, decode_arrived, decode_head, decode_result

__all__ = ["read_queue"]


def read_queue(directory: Path) -> list[StoredCommand]:
    """Return the live commands of a store that an agent may be using; raise StoreError if it cannot be read."""
    database = directory / "commands" / "cache.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN")  # one snapshot for all that is read
            head = decode_head(_value(connection, HEAD) or b"{}")
            query = "SELECT key FROM Cache WHERE key GLOB ? ORDER BY key"
            keys = [key for (key,) in connection.execute(query, (COMMAND + "*",))]
            return [_queued(connection, key, head) for key in keys]
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise StoreError(f"The queue in {directory} cannot be read: {error}.") from error


def _queued(connection: sqlite3.Connection, key: str, head: Head) -> StoredCommand:
    arrived = decode_arrived(_value(connection, key) or b"")
    result = _value(connection, RESULT + arrived.command.id)
    return assemble(key, arrived, head.processing.get(key), decode_result(result) if result else None)


def _value(connection: sqlite3.Connection, key: str) -> bytes | None:
    row = connection.execute("SELECT value FROM Cache WHERE key = ? AND mode = ?", (key, RAW)).fetchone()
    if row and not isinstance(row[0], bytes):
        raise StoreError(f"The row {key} of the queue is not of the agent's making; it was refused.")
    return row[0] if row else None
