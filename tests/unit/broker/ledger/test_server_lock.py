"""One server for each ledger and client id, on both databases."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event

from broker.app.factories import open_database
from broker.errors import LedgerError
from broker.ledger.database import Database
from broker.ledger.server_lock import ServerLock, ServerRunning, running_servers
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_for


@pytest.fixture
def databases(ledger_url: str) -> Iterator[tuple[Database, Database]]:
    """The database as two processes have it."""
    with open_database(ledger_url) as one, open_database(ledger_url) as other:
        yield one, other


def test_second_server_is_refused_with_the_name_of_the_first(
    databases: tuple[Database, Database], clock: TurnedClock
) -> None:
    first, second = (ServerLock(database, "acm-server", clock.now) for database in databases)
    first.acquire()
    with raises_code(ServerRunning, "server_running") as refused:
        second.acquire()
    for named in (f"process {os.getpid()}", socket.gethostname(), "2026-01-01 00:16:40", "acm-server"):
        assert named in str(refused.value)
    other = ServerLock(databases[1], "shard/2", clock.now)
    other.acquire()
    assert [it.client_id for it in running_servers(databases[1])] == ["acm-server", "shard/2"]
    other.release()
    first.release()
    assert running_servers(databases[1]) == []
    second.acquire()
    second.release()


@contextmanager
def two_processes(postgresql: PostgreSQL) -> Iterator[tuple[Database, Database, str]]:
    with (
        postgresql.borrowed_database() as url,
        open_database(url) as one,
        open_database(url) as other,
    ):
        yield one, other, url


def test_lock_that_the_database_lost_is_acquired_again(postgresql: PostgreSQL, clock: TurnedClock) -> None:
    with two_processes(postgresql) as (one, other, url):
        lock = ServerLock(one, "acm-server", clock.now)
        lock.acquire()
        postgresql.end_connections(url)
        lock.keep()
        assert [it.client_id for it in running_servers(other)] == ["acm-server"]
        lock.release()
        wait_for(lambda: running_servers(other) == [], "PostgreSQL to notice the end of the connection")


def test_server_that_lost_its_lock_to_another_ends(postgresql: PostgreSQL, clock: TurnedClock) -> None:
    with two_processes(postgresql) as (one, other, url):
        first, second = (ServerLock(database, "acm-server", clock.now) for database in (one, other))
        first.acquire()
        postgresql.end_connections(url)
        clock.turn(1)
        second.acquire()
        with raises_code(ServerRunning, "server_running"):
            first.keep()
        second.release()


def test_database_in_memory_has_one_process_and_no_lock(clock: TurnedClock) -> None:
    with open_database("sqlite://") as database:
        for _ in range(2):
            ServerLock(database, "acm-server", clock.now).acquire()
        assert [it.client_id for it in running_servers(database)] == ["acm-server"]


@pytest.fixture
def instance() -> Iterator[PostgreSQL]:
    """One of this test alone, which it may end."""
    own = PostgreSQL(is_durable=True)
    yield own
    own.remove()


def test_lock_is_acquired_again_before_work_goes_on_after_an_outage(instance: PostgreSQL, clock: TurnedClock) -> None:
    url = instance.new_database()
    with open_database(url) as one, open_database(url) as other:
        first, second = (ServerLock(database, "acm-server", clock.now) for database in (one, other))
        first.acquire()
        instance.kill()
        for _ in range(2):
            with raises_code(LedgerError, "ledger_not_reachable"):
                first.keep()
        instance.start()
        first.keep()
        with raises_code(ServerRunning, "server_running"):
            second.acquire()
        first.release()


def test_server_ends_if_another_took_its_lock_during_an_outage(instance: PostgreSQL, clock: TurnedClock) -> None:
    url = instance.new_database()
    with open_database(url) as one, open_database(url) as other:
        first, second = (ServerLock(database, "acm-server", clock.now) for database in (one, other))
        first.acquire()
        instance.kill()
        with raises_code(LedgerError, "ledger_not_reachable"):
            first.keep()
        instance.start()
        clock.turn(1)
        second.acquire()
        for _ in range(2):
            with raises_code(ServerRunning, "server_running"):
                first.keep()
        second.release()


class Relay:
    """Passes connections on to PostgreSQL; the clients' sides can end without the database noticing."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lost: list[socket.socket] = []
        self._opened: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_clients(self) -> None:
        for client, database in self._pairs:
            client.shutdown(socket.SHUT_RDWR)
            self._lost.append(database)
        self._pairs.clear()

    def end_lost(self) -> None:
        for database in self._lost:
            database.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for each in self._opened:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                database = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((client, database))
                self._opened += [client, database]
                for source, target in ((client, database), (database, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                target.sendall(received)


def test_lock_of_a_connection_that_the_database_has_not_lost_yet_is_waited_for(
    postgresql: PostgreSQL, clock: TurnedClock
) -> None:
    with (
        postgresql.borrowed_database() as url,
        contextlib.closing(Relay(postgresql.port)) as relay,
        open_database(url.replace(str(postgresql.port), str(relay.port))) as database,
    ):
        lock = ServerLock(database, "acm-server", clock.now)
        lock.acquire()
        relay.lose_clients()
        for _ in range(2):
            with raises_code(LedgerError, "lock_lost"):
                lock.keep()
        relay.end_lost()
        wait_for(lambda: _is_kept(lock), "the lock of the connection that ended")
        lock.release()


def _is_kept(lock: ServerLock) -> bool:
    try:
        lock.keep()
    except ServerRunning:
        raise
    except LedgerError:
        return False
    return True


def test_connection_is_written_only_when_it_changes(databases: tuple[Database, Database], clock: TurnedClock) -> None:
    one, other = databases
    lock = ServerLock(one, "acm-server", clock.now)
    lock.acquire()
    started = clock.now()
    statements: list[str] = []
    event.listen(one._engine, "before_cursor_execute", lambda *it: statements.append(it[2]))

    def noted(problem: str | None) -> tuple[object, object, bool]:
        clock.turn(10.0)
        statements.clear()
        lock.note_connection(problem)
        (found,) = running_servers(other)
        return found.connection_at and (found.connection_at - started), found.connection_problem, bool(statements)

    (server,) = running_servers(other)
    assert (server.connection_at, server.connection_problem) == (None, None)
    assert noted("Refused.") == (timedelta(seconds=10), "Refused.", True)
    assert noted("Refused.") == (timedelta(seconds=10), "Refused.", False)
    assert noted("Timed out.") == (timedelta(seconds=10), "Timed out.", True)
    assert noted(None) == (timedelta(seconds=40), None, True)
    assert noted(None) == (timedelta(seconds=40), None, False)
    assert noted("Lost.") == (timedelta(seconds=60), "Lost.", True)
    lock.release()
    next_one = ServerLock(other, "acm-server", clock.now)
    next_one.acquire()
    (server,) = running_servers(one)
    assert (server.connection_at, server.connection_problem) == (None, None)
    next_one.release()
