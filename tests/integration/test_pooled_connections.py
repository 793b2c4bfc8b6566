"""A ledger in PostgreSQL behind PgBouncer in transaction mode: each transaction may use another connection."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from broker.app.factories import open_database, open_ledger
from broker.contract.messages import Origin
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.server_lock import ServerLock, ServerRunning, running_servers
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.postgresql import PgBouncer, PostgreSQL, shared_pooler
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
REQUEST = CommandRequest("restart-agent", {}, Origin("me", "test"))


@pytest.fixture
def direct(postgresql: PostgreSQL) -> str:
    """A ledger, without the pooler."""
    url = postgresql.new_database()
    open_database(url).close()
    return url


@pytest.fixture
def pooled(direct: str) -> str:
    """The same, by the pooler."""
    return shared_pooler().pooled(direct)


def test_statements_of_many_programs_do_not_meet(pooled: str) -> None:
    def send_and_look_up(agent: str) -> list[str]:
        with open_ledger(pooled) as ledger:
            ids = [ledger.add_command(agent, REQUEST).id for _ in range(20)]
            assert [ledger.get(command_id).command.id for command_id in ids] == ids
            assert {row.agent for row in ledger.commands(agent)} == {agent}
            return ids

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(send_and_look_up, [f"web-{number}" for number in range(8)]))
    with open_ledger(pooled) as ledger:
        assert {row.command.id for row in ledger.commands()} == {name for names in found for name in names}


def test_lock_is_given_up_in_time(direct: str, pooled: str, postgresql: PostgreSQL) -> None:
    with postgresql.connect(direct) as connection, connection.transaction():
        connection.execute("LOCK TABLE commands IN ACCESS EXCLUSIVE MODE")
        with open_ledger(pooled) as ledger, raises_code(LedgerError, "ledger_locked"):
            ledger.commands()


def test_timeouts_of_ours_do_not_stay_with_the_connection(direct: str, pooled: str) -> None:
    with open_ledger(pooled) as ledger:
        ledger.commands()
    with psycopg.connect(pooled.replace("+psycopg", ""), autocommit=True) as other:
        shown = [other.execute(f"SHOW {name}").fetchone() for name in ("lock_timeout", "statement_timeout")]
    assert shown == [("0",), ("0",)]


def test_one_server_has_the_lock(pooled: str, clock: TurnedClock) -> None:
    with open_database(pooled) as one, open_database(pooled) as other:
        first, second = (ServerLock(database, "acm-server", clock.now) for database in (one, other))
        first.acquire()
        for _ in range(5):  # whichever connection of the pool it gets
            with raises_code(ServerRunning, "server_running"):
                second.acquire()
            first.keep()
        assert [it.client_id for it in running_servers(other)] == ["acm-server"]
        first.release()
        wait_for(lambda: running_servers(other) == [], "PgBouncer to end the transaction")
        second.acquire()
        second.release()


def test_lock_ends_with_the_process_that_holds_it(pooled: str, clock: TurnedClock) -> None:
    program = (
        "import sys\nfrom datetime import UTC, datetime\n"
        "from broker.app.factories import open_database\nfrom broker.ledger.server_lock import ServerLock\n"
        "with open_database(sys.argv[1]) as database:\n"
        "    lock = ServerLock(database, 'acm-server', lambda: datetime.now(UTC))\n"
        "    lock.acquire()\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, pooled], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with open_database(pooled) as database:
            assert len(running_servers(database)) == 1
            holder.kill()
            wait_for(lambda: running_servers(database) == [], "the end of the lock")
            lock = ServerLock(database, "acm-server", clock.now)
            lock.acquire()
            lock.release()
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture
def own_pooler(postgresql: PostgreSQL) -> Iterator[PgBouncer]:
    """A pooler that the test ends."""
    pooler = PgBouncer(postgresql)
    yield pooler
    pooler.remove()


def test_lock_that_the_pooler_lost_is_acquired_again(direct: str, own_pooler: PgBouncer, clock: TurnedClock) -> None:
    with open_database(own_pooler.pooled(direct)) as database, open_database(direct) as other:
        lock = ServerLock(database, "acm-server", clock.now)
        lock.acquire()
        own_pooler.kill()
        with raises_code(LedgerError, "ledger_not_reachable"):
            lock.keep()
        own_pooler.start()
        lock.keep()
        assert len(running_servers(other)) == 1
        lock.release()
