"""The ledger in PostgreSQL: bounds on every wait, and connections that are hung up when they do not answer."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, Timer
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from broker.ledger.bytes_of_text import text_of_bytes
from broker.ledger.failures import DatabaseUnavailable
from broker.ledger.location import LedgerUrlError

__all__ = [
    "Connections",
    "bound_transactions",
    "connect_arguments",
    "lock_migrations",
    "reading_options",
    "refuse_encoding",
]


_CONNECT_S = 5
_LOCK_S = 5
_STATEMENT_S = 30
_SILENCE_S = 10  # of the network below a connection
_LAST_WORDS_S = 3.0
_CANCEL_S = 2.0
_MIGRATION_S = 3600
_MIGRATIONS = 0x61636D  # the key of the lock: "acm"


def connect_arguments(url: sa.URL) -> dict[str, Any]:
    """Return the arguments of psycopg's `connect`; what the URL sets itself comes last.

    A pooler refuses startup parameters that it does not know, so nothing is set by them: `bound_transactions` does it.
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


def bound_transactions(engine: sa.Engine, url: sa.URL) -> None:
    """Bound the waits of each transaction, unless the URL's `options` do; a pooler may give each another connection."""
    given = str(url.query.get("options", ""))
    bounds = {"lock_timeout": _LOCK_S, "statement_timeout": _STATEMENT_S}
    settings = "; ".join(f"SET LOCAL {name} = '{bound}s'" for name, bound in bounds.items() if name not in given)
    if settings:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(settings))


def reading_options() -> Mapping[str, Any]:
    """Return the options of a transaction that only reads: all its queries see one snapshot."""
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


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
        self._open: dict[int, Any] = {}

    def watch(self, engine: sa.Engine) -> None:
        """Know the connections of this engine from now on."""

        def opened(raw: Any, record: object) -> None:
            _tolerate_damaged_text(raw)
            with self._lock:
                self._open[id(raw)] = raw

        def closed(raw: Any, record: object) -> None:
            with self._lock:
                self._open.pop(id(raw), None)

        event.listen(engine, "do_connect", lambda dialect, record, arguments, named: _connect(*arguments, **named))
        event.listen(engine, "connect", opened)
        event.listen(engine, "close", closed)

    @contextmanager
    def limited(self, limit_s: float) -> Iterator[None]:
        """Hang up unless the block ends within `limit_s` seconds."""
        timer = self._hang_up_after(limit_s)
        try:
            yield
        finally:
            timer.cancel()

    def hang_up_soon(self) -> None:
        """Hang up in a few seconds, whatever is within a transaction then; for the end of the process.

        Without a thread for the wait, hang up at once.
        """
        try:
            self._hang_up_after(_LAST_WORDS_S)
        except DatabaseUnavailable:
            self._hang_up_all()

    def _hang_up_after(self, limit_s: float) -> Timer:
        timer = Timer(limit_s, self._hang_up_all)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:  # without a deadline, a database that hangs would hang this program
            raise DatabaseUnavailable(
                "The ledger is not used now: the machine has no thread that would end a call without an answer."
            ) from error
        return timer

    def _hang_up_all(self) -> None:
        with self._lock:
            connections = list(self._open.values())
        for raw in connections:
            _hang_up(raw)


def _tolerate_damaged_text(raw: Any) -> None:
    """Let the connection decode text that is not UTF-8, instead of failing the whole query."""
    from psycopg.adapt import Loader

    class TextLoader(Loader):
        def load(self, data: Any) -> str:
            return text_of_bytes(bytes(data))

    for name in ("text", "varchar"):
        raw.adapters.register_loader(name, TextLoader)


def _connect(*arguments: Any, **named: Any) -> Any:
    """Return a connection of psycopg that a signal interrupts within seconds, also if PostgreSQL hangs.

    psycopg asks PostgreSQL to cancel the query, waits five seconds for that and five more for the query, and logs it.
    """
    import psycopg

    class Connection(psycopg.Connection[Any]):
        def cancel_safe(self, *, timeout: float = _CANCEL_S) -> None:
            try:
                super().cancel_safe(timeout=min(timeout, _CANCEL_S))
            except BaseException:
                _hang_up(self)
                raise

    logging.getLogger("psycopg").setLevel(logging.ERROR)
    return Connection.connect(*arguments, **named)


def _hang_up(raw: Any) -> None:
    """End the connection below psycopg, whose waiting thread then gets an error."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(raw.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
