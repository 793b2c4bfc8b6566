"""The clocks: of this machine, and of the ledger's database."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from broker.doctor.ledger import with_database
from broker.ledger.clock import LedgerClock
from broker.ledger.database import Database
from broker.ledger.health import newest_time
from broker.system.findings import Fault, Finding, Level, ok

__all__ = [
    "check_clock",
]


DIFFER = Fault(
    "clocks_differ",
    Level.WARN,
    "The clocks of this machine and of the ledger's database differ by seconds; the database's decides what expires.",
    "timedatectl set-ntp true (on the machine whose clock is wrong)",
)
BEHIND = Fault(
    "clock_behind_ledger",
    Level.FAIL,
    "The ledger has times that are still to come: the clock was set back, or was ahead when they were stored.",
    "timedatectl set-ntp true (if the clock is wrong now); else wait until that time is over",
)
_CHECK = "clock"
_TOLERATED = timedelta(seconds=5)


def check_clock(url: str, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Compare this machine's clock `now` with that of the ledger's database, and both with what is stored there."""
    return with_database(_CHECK, url, lambda database: _in(database, now))


def _in(database: Database, now: Callable[[], datetime]) -> Iterator[Finding]:
    clock = LedgerClock(database, now)
    newest, time = newest_time(database), clock()
    if clock.warning is not None:
        yield DIFFER.found(_CHECK, clock.warning)
    elif newest is not None and newest - time > _TOLERATED:
        yield BEHIND.found(_CHECK, f"It is {_shown(time)}, but the ledger has a time of {_shown(newest)}.")
    else:
        yield ok(_CHECK, f"It is {_shown(time)}, and the ledger agrees.")


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
