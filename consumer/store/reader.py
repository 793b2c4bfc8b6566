"""Reads queue and audit journal of a command store from outside, while an agent may be writing it."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker.contract.journal import JournalPage
from broker.contract.messages import JournalMark
from consumer.errors import StoreError
from consumer.ports import StoredCommand
from consumer.store.journal import page_key, page_number, read_page
from consumer.store.rows import COMMAND, HEAD, RAW, RESULT, Head, assemble, decode_arrived, decode_head, decode_result

__all__ = [
    "JournalCopy",
    "read_journal",
    "read_queue",
]


_LAST = 10**16 - 1


@dataclass(frozen=True)
class JournalCopy:
    """Pages of a journal in order, and its ends as its store knows them, all of one moment."""

    anchor: JournalMark
    head: JournalMark
    pages: tuple[JournalPage, ...]


def read_journal(state: Path, first: int = 1, most_bytes: int | None = None) -> JournalCopy:
    """Return the journal below a state directory, from the page that holds number `first` on.

    The pages are as many as have together at most `most_bytes` as JSON in JSON, but at least one, if there is one.
    Raises StoreError if it cannot be read.
    """
    database = state / "commands" / "cache.db"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN")  # one snapshot for all that is read
            row = connection.execute("SELECT value FROM Cache WHERE key = ? AND mode = ?", (HEAD, RAW)).fetchone()
            tail = decode_head(_bytes(row[0]) if row else b"{}").journal
            pages = (page for page in (*_pages(connection, first), tail.page()) if page.entries and page.last >= first)
            return JournalCopy(tail.anchor, tail.head, tuple(_that_fit(pages, most_bytes)))
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise StoreError(f"The audit journal in {state} cannot be read: {error}.") from error


def _pages(connection: sqlite3.Connection, first: int) -> Iterator[JournalPage]:
    before = "SELECT max(key) FROM Cache WHERE key >= ? AND key <= ?"
    (start,) = connection.execute(before, (page_key(0), page_key(first))).fetchone()
    rows = "SELECT key, value FROM Cache WHERE key >= ? AND key <= ? AND mode = ? ORDER BY key"
    for key, value in connection.execute(rows, (start or page_key(0), page_key(_LAST), RAW)):
        number = page_number(key)
        if number:
            yield read_page(number, _bytes(value))


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise StoreError("A row of the audit journal is not of the agent's making; it was refused.")
    return value


def _that_fit(pages: Iterable[JournalPage], most_bytes: int | None) -> Iterator[JournalPage]:
    left = most_bytes
    for page in pages:
        if left is not None:
            size = sum(len(msgspec.json.encode(line)) for line in page.entries)
            if size > left and left != most_bytes:
                return
            left -= size
        yield page


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
