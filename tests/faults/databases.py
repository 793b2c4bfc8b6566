"""The ledger's PostgreSQL, or the pooler in front of it, is killed, hangs, is locked or ends connections."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.errors import LedgerError
from tests.acceptance.conftest import Site
from tests.faults.site import AGENT, SETTLE_S, faulty_site
from tests.faults.tally import Budget, Tally
from tests.support.postgresql import PgBouncer, PostgreSQL
from tests.support.waiting import wait_for

__all__ = ["pooled", "unpooled"]


_COMMANDS = 4
_LOCK = "LOCK TABLE commands IN ACCESS EXCLUSIVE MODE"


def unpooled(budget: Budget) -> Tally:
    """Let the database fail in one of four ways at a time."""
    with _postgresql() as database:
        url = database.new_database()

        def hang() -> None:
            with database.stopped():
                _some_time(budget)

        def lock() -> None:
            with database.connect(url) as connection, connection.transaction():
                connection.execute(_LOCK)
                _some_time(budget)

        faults = [lambda: _restart(database, budget), lambda: database.end_connections(url), hang, lock]
        return _loop(budget, url, faults)


def pooled(budget: Budget) -> Tally:
    """Kill the pooler, or the database behind it."""
    with _postgresql() as database:
        pooler = PgBouncer(database)
        try:
            url = pooler.pooled(database.new_database())
            return _loop(budget, url, [lambda: _restart(pooler, budget), lambda: _restart(database, budget)])
        finally:
            pooler.remove()


def _loop(budget: Budget, url: str, faults: list[Callable[[], None]]) -> Tally:
    tally = Tally()
    with faulty_site(ledger=url) as site:
        site.site.wait_online(AGENT)  # a server that starts without its database ends
        for number in budget.rounds(reserve_s=SETTLE_S):
            site.send(_COMMANDS)
            faults[number % len(faults)]()
            tally.counts["faults"] += 1
            wait_for(lambda: _is_reachable(site.site), "the ledger")  # PgBouncer refuses for 15 s after a failure
            if site.server.process.poll() is not None:
                tally.violations.append(f"the server ended with {site.server.process.returncode}")
                site.start_server()
        site.settle(tally)
    return tally


def _is_reachable(site: Site) -> bool:
    try:
        with site.opened_ledger():
            return True
    except LedgerError:
        return False


def _restart(program: PostgreSQL | PgBouncer, budget: Budget) -> None:
    _some_time(budget)
    program.kill()
    _some_time(budget)
    program.start()


def _some_time(budget: Budget) -> None:
    time.sleep(budget.random.uniform(0.0, 2.0))


@contextmanager
def _postgresql() -> Iterator[PostgreSQL]:
    database = PostgreSQL(is_durable=True)
    try:
        yield database
    finally:
        database.remove()
