"""Opens the database that a configuration names, and the ledger in it; broker.app.credentials opens the rest.

This module imports no cryptography: the commands of acm that only read or write the ledger need none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from broker.enrolment.tables import METADATA
from broker.ledger.database import Database
from broker.ledger.ledger import Ledger

__all__ = [
    "open_database",
    "open_ledger",
    "utc_now",
]


def open_database(url: str) -> Database:
    """Open the database of commands and enrolments, and migrate it if it is older; raises LedgerError."""
    return Database(url, METADATA)


@contextmanager
def open_ledger(url: str) -> Iterator[Ledger]:
    """Open the ledger for a block, with the system clock; raises LedgerError."""
    with open_database(url) as database:
        yield Ledger(database, now=utc_now)


def utc_now() -> datetime:
    """Return the current time of the system clock, in UTC."""
    return datetime.now(UTC)
