"""Tells when the ledger has changed, so that nothing asks it again and again: SQLite's log, PostgreSQL's notifications.

A change that goes unnoticed must only cost time: what waits for one also looks for it now and then.
"""

import contextlib
import select
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from broker.errors import LedgerError
from broker.ledger.location import beside
from broker.ledger.postgresql import CHANGES, is_direct
from broker.system.file_events import FileEvents

__all__ = [
    "Changes",
    "PostgresqlChanges",
    "SqliteChanges",
]


_SLOW_LOOK_S = 0.5
_LOOK_S = 0.05  # without events; a look costs 5 µs in SQLite, and a round trip in PostgreSQL
_FIRST_LOOK_S = 0.001
_CONNECT_AGAIN_S = 5.0
_ANSWER_S = 10.0


class Changes:
    """Whether the ledger has changed since the last look. Use it as a context manager, in one thread.

    What this process commits counts, too. This class is that of a database which does not tell: it may always have
    changed.
    """

    look_in_s = _LOOK_S
    """In how many seconds to look again, even if `fileno` does not become readable before."""

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when it is time to look; None if only a look tells."""
        return None

    def look(self) -> bool:
        """Return whether it has changed since the last look, or may have."""
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds until it has changed, or may have; return whether it has."""
        end = monotonic() + timeout_s
        while (left := end - monotonic()) > 0:
            self._pause(min(self.look_in_s, left))
            if self.look():
                return True
        return False

    def _pause(self, pause_s: float) -> None:
        waits = select.poll()
        if (descriptor := self.fileno()) is not None:
            waits.register(descriptor, select.POLLIN)
        waits.poll(pause_s * 1000)

    def close(self) -> None:
        """Release what notices changes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SqliteChanges(Changes):
    """The kernel tells when the write-ahead log of this file is written, and SQLite whether that was a commit.

    The log is written before the commit can be seen, by as much as an fsync takes. So looks follow each write, after 1,
    2, 4 … milliseconds. Without a log, or if the kernel watches no more files, there is a look each 50 ms.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, check_same_thread=False)
        self._events: FileEvents | None = None
        with contextlib.suppress(OSError):
            self._events = FileEvents(beside(file, "-wal"))
        self._longest_s = self.look_in_s = _SLOW_LOOK_S if self._events else _LOOK_S
        self._version = self._read_version()

    def fileno(self) -> int | None:
        """Return the descriptor of the kernel's events; None without them."""
        return self._events.fileno() if self._events else None

    def look(self) -> bool:
        """Take the events, and return whether another commit can be seen than at the last look."""
        is_written = self._events is not None and self._events.take()
        self.look_in_s = _FIRST_LOOK_S if is_written else min(2 * self.look_in_s, self._longest_s)
        before, self._version = self._version, self._read_version()
        if self._version is None:
            self.look_in_s = _LOOK_S
        return self._version is None or self._version != before

    def close(self) -> None:
        """Close the connection, and end the events."""
        self._connection.close()
        if self._events is not None:
            self._events.close()

    def _read_version(self) -> int | None:
        """Return a number that differs after each commit; None if it cannot be read now."""
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return None
        return int(version)


class PostgresqlChanges(Changes):
    """PostgreSQL notifies of each transaction that writes. A pooler passes no notifications on: it is asked each 50 ms.

    What it is asked for is the snapshot, which differs once any transaction has ended that has written anything.
    `connect` opens a connection, or raises LedgerError and is tried again after 5 seconds. `answering_within` bounds a
    block.
    """

    def __init__(
        self, connect: Callable[[], Any], answering_within: Callable[[float], AbstractContextManager[None]]
    ) -> None:
        self._connect = connect
        self._answering_within = answering_within
        self._connection: Any = None
        self._notifies = False
        self._snapshot = ""
        self._look_at = self._connect_at = 0.0
        self._open()

    def fileno(self) -> int | None:
        """Return the connection's descriptor; None if it brings no notifications."""
        return self._connection.fileno() if self._notifies else None

    def look(self) -> bool:
        """Return whether a notification has arrived, or whether the snapshot is another one."""
        if self._connection is None:
            if monotonic() >= self._connect_at:
                self._open()
            return True
        try:
            return self._take_notifications() if self._notifies else self._has_new_snapshot()
        except self._connection.Error:
            self.close()
            return True

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._notifies, self.look_in_s = None, False, _LOOK_S

    def _open(self) -> None:
        self._connect_at = monotonic() + _CONNECT_AGAIN_S
        with contextlib.suppress(LedgerError), self._answering_within(_ANSWER_S):
            self._connection = self._connect()
            try:
                self._notifies = is_direct(self._connection)
                if self._notifies:
                    self._connection.execute(f"LISTEN {CHANGES}")
                    self.look_in_s = _SLOW_LOOK_S
            except self._connection.Error:
                self.close()

    def _take_notifications(self) -> bool:
        found = False
        self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies():
            found = True
        return found

    def _has_new_snapshot(self) -> bool:
        if monotonic() < self._look_at:
            return False
        self._look_at = monotonic() + _LOOK_S
        with self._answering_within(_ANSWER_S):
            (snapshot,) = self._connection.execute("SELECT txid_current_snapshot()::text").fetchone()
        before, self._snapshot = self._snapshot, snapshot
        return bool(snapshot != before)
