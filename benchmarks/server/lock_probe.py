"""How long another program waits for the ledger: what can be seen of the server's transactions from outside."""

import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import sqlalchemy as sa

__all__ = ["LockProbe", "lock_probe"]

_EVERY_S = 0.1
_RETRY_S = 0.003


class LockProbe:
    """Looks often. `longest_s` is the longest wait for SQLite's lock, or the age of PostgreSQL's oldest transaction.

    `commits` is how many transactions have written to SQLite meanwhile, known at the end.
    """

    def __init__(self, url: str) -> None:
        self.longest_s = 0.0
        self.commits: int | None = None
        self._url = url
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Look until stopped."""
        if self._url.startswith("sqlite"):
            self._look_at_file(self._url.removeprefix("sqlite:///"))
        else:
            self._look_at_activity()

    def _look_at_file(self, path: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        before = _commits(path)
        while not self._stopping.wait(_EVERY_S):
            began = monotonic()
            while not _take(connection) and not self._stopping.wait(_RETRY_S):
                pass
            self.longest_s = max(self.longest_s, monotonic() - began)
        self.commits = _commits(path) - before
        connection.close()

    def _look_at_activity(self) -> None:
        query = sa.text(
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid() AND backend_xid IS NOT NULL"
        )
        engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            while not self._stopping.wait(_EVERY_S):
                self.longest_s = max(self.longest_s, float(connection.scalar(query) or 0.0))
        engine.dispose()


def _commits(path: str) -> int:
    """Return the counter of commits in the index of SQLite's log (sqlite.org/walformat.html, iChange)."""
    return int.from_bytes(Path(f"{path}-shm").read_bytes()[8:12], sys.byteorder)


def _take(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    connection.execute("ROLLBACK")
    return True


@contextmanager
def lock_probe(url: str) -> Iterator[LockProbe]:
    """Look at the ledger at `url` during the block."""
    probe = LockProbe(url)
    thread = threading.Thread(target=probe.run, daemon=True)
    thread.start()
    try:
        yield probe
    finally:
        probe.stop()
        thread.join(10)
