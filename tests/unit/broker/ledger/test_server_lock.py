"""One server for each ledger and client id, on both databases."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.app.factories import open_database
from broker.ledger.database import Database
from broker.ledger.server_lock import ServerLock, ServerRunning, running_servers
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.postgresql import PostgreSQL


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


def end_connections(postgresql: PostgreSQL, url: str) -> None:
    """What a restart of PostgreSQL does to its clients."""
    with postgresql.connect(url) as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        connection.execute(f"{others} AND pid <> pg_backend_pid()")


def test_lock_that_the_database_lost_is_acquired_again(postgresql: PostgreSQL, clock: TurnedClock) -> None:
    with two_processes(postgresql) as (one, other, url):
        lock = ServerLock(one, "acm-server", clock.now)
        lock.acquire()
        end_connections(postgresql, url)
        lock.keep()
        assert [it.client_id for it in running_servers(other)] == ["acm-server"]
        lock.release()
        assert running_servers(other) == []


def test_server_that_lost_its_lock_to_another_ends(postgresql: PostgreSQL, clock: TurnedClock) -> None:
    with two_processes(postgresql) as (one, other, url):
        first, second = (ServerLock(database, "acm-server", clock.now) for database in (one, other))
        first.acquire()
        end_connections(postgresql, url)
        second.acquire()
        with raises_code(ServerRunning, "server_running"):
            first.keep()
        second.release()


def test_database_in_memory_has_one_process_and_no_lock(clock: TurnedClock) -> None:
    with open_database("sqlite://") as database:
        for _ in range(2):
            ServerLock(database, "acm-server", clock.now).acquire()
        assert [it.client_id for it in running_servers(database)] == ["acm-server"]
