"""Opens the database that a configuration names, and the ledger in it; broker.app.credentials opens the rest.

This module imports no cryptography: the commands of acm that only read or write the ledger need none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from broker.access.tables import METADATA
from broker.ledger.clock import LedgerClock
from broker.ledger.database import Database
from broker.ledger.ledger import Ledger
from broker.ledger.location import LedgerUrlError, is_in_memory, ledger_url, place_of

__all__ = [
    "log_migration",
    "open_configured_database",
    "open_database",
    "open_ledger",
    "utc_now",
]


def open_database(
    url: str, *, create: bool = True, read_only: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Database:
    """Open the database of commands, enrolments and principals, and migrate it if it is older; raises LedgerError.

    Without `create`, one that does not exist is LedgerNotFound. With `read_only`, nothing is created or migrated. The
    progress of a migration is reported by `tell`.
    """
    return Database(url, METADATA, create=create, read_only=read_only, tell=tell)


def open_configured_database(
    url: str, *, create: bool = True, read_only: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Database:
    """Open the database of a configuration, as `open_database` does. One in memory is LedgerUrlError: it would be lost.

    A program that embeds the ledger may open one in memory.
    """
    parsed = ledger_url(url)
    if is_in_memory(parsed):
        raise LedgerUrlError(
            f"The ledger {place_of(parsed)} would be lost when the program ends: write sqlite:///PATH.",
            code="ledger_in_memory",
        )
    return open_database(url, create=create, read_only=read_only, tell=tell)


@contextmanager
def open_ledger(url: str) -> Iterator[Ledger]:
    """Open the ledger for a block, with the clock of its database; raises LedgerError."""
    with open_database(url) as database:
        yield Ledger(database, now=LedgerClock(database, utc_now))


def log_migration(progress: str) -> None:
    """Log what a migration of the ledger tells."""
    import structlog  # which `acm show` starts without

    structlog.get_logger("acm.server").info("ledger_migration", progress=progress)


def utc_now() -> datetime:
    """Return the current time of the system clock, in UTC."""
    return datetime.now(UTC)
