"""Reads the database of a command store from outside, even while an agent writes it.

Only this module and consumer.store.inspection know diskcache's tables.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from broker.contract.journal import JournalPage
from broker.contract.messages import JournalMark, SequenceNumber
from broker.contract.states import State
from consumer.errors import StoreError
from consumer.ports import StoredCommand, TimeSample
from consumer.store.grouped_rows import GroupReader
from consumer.store.inspection import DATABASE, check_pages, open_store_database
from consumer.store.journal import page_key, page_number, read_page
from consumer.store.rows import (
    COMMAND,
    GENERATION,
    HEAD,
    RAW,
    RESULT,
    CommandRow,
    HeadRow,
    assemble,
    decode_command_row,
    decode_head,
    decode_result,
    id_in_key,
    unreadable_command,
)

__all__ = ["StoreSummary", "read_journal", "read_queue", "read_summary", "refuse_damaged_store"]


_TIMEOUT_S = 5.0
_MAX_PAGE_NUMBER = 10**16 - 1


@dataclass(frozen=True)
class JournalCopy:
    """Pages of a journal in order, and the ends that its store has recorded, all from one snapshot."""

    anchor: JournalMark
    head: JournalMark
    pages: tuple[JournalPage, ...]


@dataclass(frozen=True)
class StoreSummary:
    """What a store holds, from one snapshot: how many commands have not begun, and how many wait for their ack.

    `running` has those that have begun, in order. The journal goes from the entry after `anchor` to `head`. The server
    has signed `heard_time` some time ago.
    """

    generation: str
    last_sequence: SequenceNumber | None
    accepted: int
    running: tuple[StoredCommand, ...]
    completed: int
    anchor: JournalMark
    head: JournalMark
    heard_time: TimeSample | None = None


def read_summary(state: Path) -> StoreSummary | None:
    """Return what the store below a state directory holds, None if there is no store; raises StoreError."""
    if not (state / "commands" / DATABASE).exists():
        return None
    with _snapshot(state, "command store") as rows:
        commands, results = GroupReader(rows, COMMAND), GroupReader(rows, RESULT)
        keys, done = commands.all_keys(), set(results.all_keys())
        begun = [key for key in keys if key in rows.head.processing]
        running = [stored for key in begun if not (stored := _queued(rows.head, commands, results, key, done)).result]
        generation = rows.value(GENERATION)
        return StoreSummary(
            generation.decode(errors="replace") if generation else "",
            rows.head.last_sequence,
            len(keys) - len(done) - len(running),
            tuple(running),
            len(done),
            rows.head.journal.anchor,
            rows.head.journal.head,
            rows.head.heard_time,
        )


def refuse_damaged_store(state: Path) -> None:
    """Raise StoreDamaged if SQLite finds damage in the store below a state directory, StoreError if it cannot look."""
    with _snapshot(state, "command store") as rows:
        rows.check_pages()


def read_queue(state: Path) -> list[StoredCommand]:
    """Return the live commands below a state directory, in order; raises StoreError if they cannot be read."""
    with _snapshot(state, "queue") as rows:
        commands, results = GroupReader(rows, COMMAND), GroupReader(rows, RESULT)
        done = set(results.all_keys())
        return [_queued(rows.head, commands, results, key, done) for key in commands.all_keys()]


def _queued(head: HeadRow, commands: GroupReader, results: GroupReader, key: str, done: set[str]) -> StoredCommand:
    arrived = _arrived(commands, key)
    result = RESULT + arrived.command.id
    if result not in done:
        return assemble(key, arrived, head.processing.get(key), None)
    try:
        return assemble(key, arrived, None, decode_result(results[result]))
    except (KeyError, ValueError):
        return replace(assemble(key, arrived, None, None), state=State.DONE)


def _arrived(commands: GroupReader, key: str) -> CommandRow:
    """Return the command in a row; of one that the disk has altered, the id in its key."""
    try:
        return decode_command_row(commands[key])
    except (KeyError, ValueError):
        command_id = id_in_key(key)
        if command_id is None:
            raise
        return unreadable_command(command_id, datetime.fromtimestamp(0, UTC))


def read_journal(state: Path, first: int = 1, max_bytes: int | None = None) -> JournalCopy:
    """Return the journal below a state directory, starting with the page that holds number `first`.

    Returns as many pages as fit into `max_bytes`, counted as JSON strings in JSON, but at least one if there is one.
    Raises StoreError if it cannot be read.
    """
    with _snapshot(state, "audit journal") as rows:
        tail = rows.head.journal
        pages = (page for page in (*rows.pages(first), tail.page()) if page.entries and page.last >= first)
        return JournalCopy(tail.anchor, tail.head, tuple(_up_to(max_bytes, pages)))


def _up_to(max_bytes: int | None, pages: Iterable[JournalPage]) -> Iterator[JournalPage]:
    left = max_bytes
    for page in pages:
        if left is not None:
            size = sum(len(msgspec.json.encode(line)) for line in page.entries)
            if size > left and left != max_bytes:
                return
            left -= size
        yield page


def _mode(store: Path) -> str:
    """Return how to open the database: SQLite needs a file beside it, except for one that no process writes."""
    database, log = store / DATABASE, store / (DATABASE + "-wal")
    if os.access(store, os.W_OK) or not database.exists() or log.exists():
        return "mode=ro"
    return "mode=ro&immutable=1"


@contextlib.contextmanager
def _snapshot(state: Path, subject: str) -> Iterator["_Snapshot"]:
    store = state / "commands"
    try:
        with open_store_database(store, _mode(store), timeout_s=_TIMEOUT_S) as connection:
            connection.execute("BEGIN")  # one snapshot for all reads
            yield _Snapshot(connection, subject)
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise StoreError(f"The {subject} in {state} cannot be read: {error}.", code="store_unreadable") from error


class _Snapshot:
    """The rows of a store at one moment."""

    def __init__(self, connection: sqlite3.Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self.head: HeadRow = decode_head(self.value(HEAD) or b"{}")

    def check_pages(self) -> None:
        """Raise StoreDamaged if SQLite finds damage."""
        check_pages(self._connection)

    def value(self, key: str) -> bytes | None:
        row = self._connection.execute("SELECT value FROM Cache WHERE key = ? AND mode = ?", (key, RAW)).fetchone()
        return self._bytes(row[0]) if row else None

    def __getitem__(self, key: str) -> bytes:
        value = self.value(key)
        if value is None:
            raise KeyError(key)
        return value

    def keys(self, prefix: str) -> list[str]:
        query = "SELECT key FROM Cache WHERE key GLOB ? ORDER BY key"
        return [key for (key,) in self._connection.execute(query, (prefix + "*",))]

    def pages(self, first: int) -> Iterator[JournalPage]:
        """Yield the pages, starting with the one that holds number `first`."""
        last_before = "SELECT max(key) FROM Cache WHERE key >= ? AND key <= ?"
        (start,) = self._connection.execute(last_before, (page_key(0), page_key(first))).fetchone()
        pages = "SELECT key, value FROM Cache WHERE key >= ? AND key <= ? AND mode = ? ORDER BY key"
        bounds = (start or page_key(0), page_key(_MAX_PAGE_NUMBER), RAW)
        for key, value in self._connection.execute(pages, bounds):
            number = page_number(key)
            if number:
                yield read_page(number, self._bytes(value))

    def _bytes(self, value: object) -> bytes:
        if not isinstance(value, bytes):
            raise StoreError(
                f"The {self._subject} holds a row that the agent did not write; it was refused.", code="foreign_row"
            )
        return value
