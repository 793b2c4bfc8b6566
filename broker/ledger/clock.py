"""The clock of a ledger: its database's, so that programs on several machines agree on expiry and order."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

import sqlalchemy as sa

from broker.ledger.database import Database

__all__ = [
    "LedgerClock",
]


_READ_EVERY_S = 60.0
_TOLERATED = timedelta(seconds=5)


class LedgerClock:
    """Called, it returns the time (UTC) of the database's server. For SQLite that is `local`, this machine's.

    It reads the database's clock now, raising LedgerError, and when `keep` is called a minute later; this machine's
    monotonic clock continues it in between.
    """

    def __init__(self, database: Database, local: Callable[[], datetime]) -> None:
        self._database = database
        self._local = local
        self._time = local()
        self._read_at = monotonic()
        self.skew = timedelta()
        if not database.is_sqlite:
            self._read()

    def __call__(self) -> datetime:
        """Return the current time."""
        if self._database.is_sqlite:
            return self._local()
        return self._time + timedelta(seconds=monotonic() - self._read_at)

    def keep(self) -> None:
        """Read the database's clock again if that was a minute ago. Raises LedgerError."""
        if not self._database.is_sqlite and monotonic() - self._read_at > _READ_EVERY_S:
            self._read()

    @property
    def warning(self) -> str | None:
        """One sentence if the clocks of this machine and the database's server differ by seconds, else None."""
        if abs(self.skew) < _TOLERATED:
            return None
        seconds = abs(self.skew).total_seconds()
        return (
            f"The clock of this machine is {seconds:.0f} s {'ahead of' if self.skew > timedelta() else 'behind'} that "
            "of the ledger's database, which decides what expires: set the clock that is wrong."
        )

    def _read(self) -> None:
        with self._database.reading() as connection:
            connection.scalar(sa.select(1))  # the transaction has begun
            asked = monotonic()
            there = connection.scalar(sa.select(sa.func.clock_timestamp()))
            self._read_at = (asked + monotonic()) / 2
        assert there is not None
        self._time = there.astimezone(UTC)
        self.skew = self._local() - self()
