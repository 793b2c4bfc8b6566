"""The ledger in PostgreSQL: bounds on every wait, and connections that are hung up when they do not answer."""

import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
from sqlalchemy import event

from broker.ledger.bytes_of_text import text_of_bytes
from broker.ledger.deadlines import Deadlines
from broker.ledger.failures import DatabaseUnavailable
from broker.ledger.location import LedgerUrlError

__all__ = [
    "CHANGES",
    "Connections",
    "begin_transactions",
    "connect_arguments",
    "is_direct",
    "lock_migrations",
    "refuse_encoding",
]


CHANGES = "acm_ledger"
"""The channel that each transaction that writes notifies."""

_CONNECT_S = 5
_LOCK_S = 5
_STATEMENT_S = 30
_SILENCE_S = 10  # of the network below a connection
_LAST_WORDS_S = 3.0
_MIGRATION_S = 3600
_MIGRATIONS = 0x61636D  # the key of the lock: "acm"


def connect_arguments(url: sa.URL) -> dict[str, Any]:
    """Return the arguments of psycopg's `connect`; what the URL sets itself comes last.

    A pooler refuses startup parameters that it does not know, so nothing is set by them: `begin_transactions` does it.
    """
    return {
        "connect_timeout": _CONNECT_S,
        "keepalives_idle": _SILENCE_S,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": _SILENCE_S * 1000,
        "application_name": "acm",
        **url.query,
        "client_encoding": "utf8",
        "prepare_threshold": None,  # a connection may be one of a pool's, with the statements of others
    }


def begin_transactions(engine: sa.Engine, url: sa.URL, reads: Callable[[sa.Connection], bool]) -> None:
    """Begin each transaction of the engine, with bounds on its waits unless the URL's `options` have them.

    The bounds are of the transaction, since a pooler may give each another connection. They are sent together with
    BEGIN: of the round trips of a short transaction that is every fourth. All queries of one that `reads` see one
    snapshot; one that does not notifies of its changes, with its commit.
    """
    given = str(url.query.get("options", ""))
    bounds = {"lock_timeout": _LOCK_S, "statement_timeout": _STATEMENT_S}
    settings = "".join(f"; SET LOCAL {name} = '{bound}s'" for name, bound in bounds.items() if name not in given)
    reading = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY{settings}"
    writing = f"BEGIN{settings}; NOTIFY {CHANGES}"

    def connected(raw: Any, record: object) -> None:
        raw.autocommit = True  # psycopg would send a BEGIN of its own, alone

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(reading if reads(connection) else writing)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begin)


def is_direct(raw: Any) -> bool:
    """Whether the other end of a connection is a process of PostgreSQL, by the id it gave; a pooler gives its own."""
    (process,) = raw.execute("SELECT pg_backend_pid()").fetchone()
    return bool(process == raw.info.backend_pid)


def lock_migrations(connection: sa.Connection) -> None:
    """Within a transaction, wait until no other process migrates, and allow as long as a large table needs."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_MIGRATION_S}s'")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_MIGRATION_S}s'")
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATIONS})")


def refuse_encoding(connection: sa.Connection, place: str) -> None:
    """Raise LedgerUrlError unless the database stores every text; only UTF-8 does."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise LedgerUrlError(
            f"The database {place} has the encoding {encoding}, which lacks characters that agents send: create one "
            "with ENCODING 'UTF8' (docs/operations.md).",
            code="unsupported_encoding",
        )


class Connections:
    """The connections of an engine: all are hung up when a transaction takes too long.

    PostgreSQL's own timeouts need a server that runs. From one that is stopped or unreachable the client would wait for
    an answer without end.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: WeakSet[Any] = WeakSet()
        self._is_over = False
        self._deadlines = Deadlines(self._hang_up_all)

    def watch(self, engine: sa.Engine) -> None:
        """Know the connections of this engine from now on."""

        def opened(raw: Any, record: object) -> None:
            _tolerate_damaged_text(raw)
            with self._lock:
                self._open.add(raw)
                is_over = self._is_over
            if is_over:
                _hang_up(raw)

        event.listen(engine, "do_connect", lambda dialect, record, arguments, named: _connect(*arguments, **named))
        event.listen(engine, "connect", opened)
        event.listen(engine, "checkout", _refuse_ended)

    @contextmanager
    def limited(self, limit_s: float) -> Iterator[None]:
        """Hang up unless the block ends within `limit_s` seconds."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._deadlines.limit(limit_s))
            except RuntimeError as error:  # without a deadline, a database that hangs would hang this program
                raise DatabaseUnavailable(
                    "The ledger is not used now: the machine has no thread that would end a call without an answer."
                ) from error
            yield

    def hang_up_soon(self) -> None:
        """Hang up in a few seconds, whatever is within a transaction then or begins later; for the end of the process.

        Without a thread for the wait, hang up at once.
        """
        timer = Timer(_LAST_WORDS_S, self._end)  # not a deadline: a signal may have interrupted those
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._is_over = True  # what hangs may try again: a pooler takes connections while PostgreSQL hangs
        self._hang_up_all()

    def close(self) -> None:
        """End the thread of the limits."""
        self._deadlines.close()

    def _hang_up_all(self) -> None:
        with self._lock:
            connections = list(self._open)
        for raw in connections:
            _hang_up(raw)


def _refuse_ended(raw: Any, record: object, fairy: object) -> None:
    """Let the pool connect again instead of using a connection that PostgreSQL or the network has ended.

    Nothing arrives on an idle connection but its end, which the kernel knows; asking PostgreSQL is a round trip.
    """
    look = select.poll()
    try:
        look.register(raw.fileno(), select.POLLIN)
    except raw.OperationalError as error:  # it is closed on this side, too
        raise sa.exc.DisconnectionError from error
    if look.poll(0):
        raise sa.exc.DisconnectionError


def _tolerate_damaged_text(raw: Any) -> None:
    """Let the connection decode text that is not UTF-8, instead of failing the whole query."""
    from psycopg.adapt import Loader

    class TextLoader(Loader):
        def load(self, data: Any) -> str:
            return text_of_bytes(bytes(data))

    for name in ("text", "varchar"):
        raw.adapters.register_loader(name, TextLoader)


def _connect(*arguments: Any, **named: Any) -> Any:
    """Return a connection of psycopg that a signal interrupts at once, also if PostgreSQL hangs.

    psycopg would ask PostgreSQL on another connection to cancel the query, and wait ten seconds. PgBouncer 1.18 ends
    with a fatal error if that connection is closed before PostgreSQL has answered. The query ends by its timeouts.
    """
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def cancel_safe(self, *, timeout: float = 0.0) -> None:
            _hang_up(self)

    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns that the query was not cancelled
    return Connection.connect(*arguments, **named)


def _hang_up(raw: Any) -> None:
    """End the connection below psycopg, whose waiting thread then gets an error."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(raw.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
