"""One server for each ledger and client id, by a lock that ends with the process that holds it.

For SQLite that is a lock on a file beside the ledger (flock(2)), for PostgreSQL an advisory lock of a transaction that
lasts. The table `servers` only says who holds it, and whether that server is connected to the broker.
"""

import contextlib
import glob
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from urllib.parse import quote

import sqlalchemy as sa

from broker.errors import LedgerError
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import replace_row
from broker.ledger.location import beside, sqlite_file
from broker.ledger.tables import SERVERS, moment, utc
from broker.system.lock import acquire_lock, is_locked

__all__ = [
    "RunningServer",
    "ServerLock",
    "ServerRunning",
    "no_server_on",
    "refuse_running_servers",
    "running_servers",
    "seconds_since_turn",
]


_TRIES = 20
_PAUSE_S = 0.05
_MAX_NAME = 100
_ANSWER_S = 30.0
# PostgreSQL holds the lock until it notices that the client is gone, which its defaults take hours for.
_LASTING = "; ".join(
    f"SET LOCAL {setting}"
    for setting in (
        "tcp_keepalives_idle = 10",
        "tcp_keepalives_interval = 2",
        "tcp_keepalives_count = 3",
        "idle_in_transaction_session_timeout = 0",
    )
)
_LOST = (
    "The database has lost this server's connection, but not yet released its lock; the server continues as soon as it "
    "has the lock again."
)
_HELD = sa.text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid::bigint = :high AND objid::bigint = :low"
)


# The connection that has the lock is asked each turn whether it still stands.
_SINCE_TURN = sa.text(
    "SELECT extract(epoch FROM clock_timestamp() - state_change)::float8 FROM pg_stat_activity WHERE pid ="
    " (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid::bigint = :high AND objid::bigint = :low)"
)


class ServerRunning(LedgerError):
    """Another server runs on this ledger with this client id."""

    code = "server_running"


@dataclass(frozen=True)
class RunningServer:
    """A server that runs on the ledger: its client id, host, process id there, and start (UTC).

    `connection_at` is since when it is connected to the broker or, with a `connection_problem`, since when it is not;
    None if it has not found out yet, or is of an earlier version.
    """

    client_id: str
    host: str
    pid: int
    started_at: datetime
    connection_at: datetime | None = None
    connection_problem: str | None = None


@dataclass(frozen=True)
class _NotedConnection:
    """The columns of SERVERS about the connection to the broker."""

    connection_at: float | None = None
    connection_problem: str | None = None


class ServerLock:
    """The right to be the one server with this client id. Without effect for a database in memory."""

    def __init__(self, database: Database, client_id: str, now: Callable[[], datetime]) -> None:
        self._database = database
        self._client_id = client_id
        self._now = now
        self._file = _lock_file(database, client_id)
        self._held = contextlib.ExitStack()
        self._connection: sa.Connection | None = None
        self._lock_handle: int | None = None
        self._own_row: tuple[object, ...] = ()
        self._noted = _NotedConnection()

    def acquire(self) -> None:
        """Acquire the lock, and record who holds it. Raises ServerRunning, and LedgerError if the database fails."""
        pause = Event()
        for _ in range(_TRIES):
            if self._try():
                return self._record()
            pause.wait(_PAUSE_S)  # a process that looks whether a server runs holds the lock for a moment
        raise ServerRunning(self._refusal())

    def keep(self) -> None:
        """Acquire the lock again if the database's connection that held it is gone; nothing may be done before.

        Raises as `acquire` does, and LedgerError (lock_lost) while PostgreSQL has not noticed yet that the connection
        is gone.
        """
        if self._file is not None or self._database.is_sqlite:
            return
        if self._connection is not None and self._answers_on(self._connection):
            return
        self.release()
        try:
            self.acquire()
        except ServerRunning:
            if self._is_recorded():
                raise LedgerError(_LOST, code="lock_lost") from None
            raise

    def note_turn(self) -> None:
        """Let others see that a turn of the server's loop is done, without a write to the ledger.

        For SQLite that is the time of the lock's file; PostgreSQL sees it by `keep`.
        """
        if self._lock_handle is not None:
            with contextlib.suppress(OSError):  # such as of a read-only file system: others see a server that hangs
                os.utime(self._lock_handle)

    def note_connection(self, problem: str | None) -> None:
        """Record, if that has changed, that this server is connected to the broker or, with a problem, that it is not.

        An idle server thus writes nothing. Raises LedgerError.
        """
        before = self._noted
        if before.connection_at is not None and before.connection_problem == problem:
            return
        stays_away = before.connection_problem is not None and problem is not None
        noted = _NotedConnection(before.connection_at if stays_away else self._now().timestamp(), problem)
        self._write(noted)
        self._noted = noted

    @retry_conflicts
    def _write(self, noted: _NotedConnection) -> None:
        with self._database.transaction() as connection:
            own = SERVERS.update().where(SERVERS.c.client_id == self._client_id)
            connection.execute(own.values(vars(noted)))

    def release(self) -> None:
        """Release the lock."""
        self._connection = self._lock_handle = None
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            self._held.close()

    def _answers_on(self, connection: sa.Connection) -> bool:
        try:
            with self._database.answering_within(_ANSWER_S):
                connection.scalar(sa.text("SELECT 1"))
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def _try(self) -> bool:
        if self._file is None:
            return self._database.is_sqlite or self._try_advisory()
        self._lock_handle = _acquire_file(self._file, self._held)
        return self._lock_handle is not None

    def _try_advisory(self) -> bool:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self._database.lasting_transaction())
            connection.exec_driver_sql(_LASTING)
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_key(self._client_id)))):
                return False
            stack.callback(connection.invalidate)  # it ends the transaction, also of one that does not answer
            self._held, self._connection = stack.pop_all(), connection
        return True

    def _is_recorded(self) -> bool:
        """Whether this was the last one that acquired the lock."""
        last = self._last_holder()
        return last is not None and self._own_row == (last.host, last.pid, last.started_at.timestamp())

    @retry_conflicts
    def _record(self) -> None:
        values = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": self._now().timestamp()}
        with self._database.transaction() as connection:
            replace_row(connection, SERVERS, {"client_id": self._client_id, **values, **vars(self._noted)})
        self._own_row = tuple(values.values())

    def _refusal(self) -> str:
        first = self._last_holder()
        who = f": process {first.pid} on {first.host}, since {first.started_at:%Y-%m-%d %H:%M:%S} UTC" if first else ""
        return (
            f"Another server runs on this ledger with the client id {self._client_id}{who}. "
            "Stop it first, or give this one a client_id of its own."
        )

    def _last_holder(self) -> RunningServer | None:
        return next((it for it in _recorded(self._database) if it.client_id == self._client_id), None)


def running_servers(database: Database) -> list[RunningServer]:
    """Return the servers that run on this ledger now. Raises LedgerError if the database fails."""
    return [it for it in _recorded(database) if _is_held(database, it.client_id)]


def seconds_since_turn(database: Database, client_id: str) -> float | None:
    """Return how long ago the running server of this client id ended, or in PostgreSQL began, a turn of its loop.

    None if that cannot be seen: in PostgreSQL by another user without pg_read_all_stats, or in a database in memory.
    Raises LedgerError if the database fails.
    """
    file = _lock_file(database, client_id)
    if file is not None:
        with contextlib.suppress(OSError):
            return max(0.0, time.time() - file.stat().st_mtime)
    if database.is_sqlite:
        return None
    with database.reading() as connection:
        found: float | None = connection.scalar(_SINCE_TURN, _halves_of_key(client_id))
    return found


def refuse_running_servers(database: Database, client_id: str) -> None:
    """Raise ServerRunning if any server runs on this ledger; a restored one may not have the row of its server.

    `client_id` is the configured one. Raises LedgerError if the database fails.
    """
    found = [f"{it.client_id}, process {it.pid} on {it.host}" for it in running_servers(database)]
    if found or _is_held(database, client_id) or any(is_locked(file) for file in _lock_files(database)):
        names = "; ".join(found) or client_id
        raise ServerRunning(f"A server runs on this ledger ({names}): stop it first, then try again.")


@contextlib.contextmanager
def no_server_on(file: Path) -> Iterator[None]:
    """Within the block, keep the servers that have run on the ledger in this SQLite file from it.

    Raises ServerRunning if one runs.
    """
    with contextlib.ExitStack() as held:
        for lock in _locks_beside(file):
            if _acquire_file(lock, held) is None:
                raise ServerRunning(f"A server runs on the ledger {file}: stop it first, then try again.")
        yield


def _acquire_file(file: Path, held: contextlib.ExitStack) -> int | None:
    """Lock a file until `held` is closed; return its descriptor, None if another process holds the lock."""
    try:
        handle = acquire_lock(file)
    except BlockingIOError:
        return None
    except OSError as error:
        raise LedgerError(f"{file} cannot be locked: {error.strerror}.", code="lock_failed") from error
    held.callback(os.close, handle)
    return handle


def _recorded(database: Database) -> list[RunningServer]:
    with database.reading() as connection:
        rows = connection.execute(SERVERS.select().order_by(SERVERS.c.client_id)).all()
    return [
        RunningServer(
            it.client_id, it.host, it.pid, utc(it.started_at), moment(it.connection_at), it.connection_problem
        )
        for it in rows
    ]


def _is_held(database: Database, client_id: str) -> bool:
    file = _lock_file(database, client_id)
    if file is not None:
        try:
            return is_locked(file)
        except OSError as error:  # of another user, who may be running one; nothing runs on a read-only file system
            return isinstance(error, PermissionError)
    if database.is_sqlite:
        return True
    with database.reading() as connection:
        return bool(connection.scalar(_HELD, _halves_of_key(client_id)))


def _halves_of_key(client_id: str) -> dict[str, int]:
    unsigned = _key(client_id) % (1 << 64)
    return {"high": unsigned >> 32, "low": unsigned % (1 << 32)}


def _lock_file(database: Database, client_id: str) -> Path | None:
    """Return the file whose lock the server holds; None for a database without a file."""
    file = sqlite_file(database.url)
    return None if file is None else _lock_beside(file, client_id)


def _lock_beside(file: Path, client_id: str) -> Path:
    name = quote(client_id, safe="")
    if len(name) > _MAX_NAME:
        name = hashlib.sha256(client_id.encode()).hexdigest()
    return beside(file, f"-server-{name}.lock")


def _lock_files(database: Database) -> list[Path]:
    file = sqlite_file(database.url)
    return [] if file is None else _locks_beside(file)


def _locks_beside(file: Path) -> list[Path]:
    start = beside(file, "-server-")
    return sorted(start.parent.glob(f"{glob.escape(start.name)}*.lock"))


def _key(client_id: str) -> int:
    """Return the key of the advisory lock, a signed number of 64 bits."""
    return int.from_bytes(hashlib.sha256(f"acm server {client_id}".encode()).digest()[:8], signed=True)
