"""The ledger: whether it answers, is of this version, sound, and can be written."""

from collections.abc import Callable, Iterator

from broker.app.factories import open_configured_database
from broker.errors import ExposedFileError, LedgerError
from broker.ledger.database import Database
from broker.ledger.failures import DatabaseUnavailable
from broker.ledger.health import count_rows_set_aside, refuse_unwritable
from broker.ledger.location import LedgerNotFound, place_of
from broker.ledger.migrations import SCHEMA_VERSION
from broker.system.advice import advised_command
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from broker.text import counted

__all__ = [
    "check_ledger",
    "with_database",
]


MISSING = Fault(
    "ledger_missing",
    Level.FAIL,
    "There is no ledger at the configured place.",
    "Start `acm server`, which creates it, or name the right one by --ledger, ACM_LEDGER or the configuration file.",
)
UNREACHABLE = Fault(
    "ledger_unreachable",
    Level.FAIL,
    "The database of the ledger does not answer.",
    "Start PostgreSQL, or correct the URL: `pg_isready --host HOST --port PORT` asks it.",
)
LOCKED = Fault(
    "ledger_locked",
    Level.FAIL,
    "Another process has kept the ledger's lock for too long, so nothing can be stored.",
    "Find the process (`fuser FILE`, or pg_stat_activity in PostgreSQL), and end it.",
)
NOT_ACCESSIBLE = Fault(
    "ledger_not_accessible",
    Level.FAIL,
    "This user cannot read or write the ledger.",
    "Run the doctor as the user of `acm server`; if it is that one, make the ledger's file and directory writable.",
)
DAMAGED = Fault(
    "ledger_damaged",
    Level.FAIL,
    "The database has damaged pages or tables.",
    "Stop `acm server`, then restore a backup: acm ledger restore FILE",
)
UNUSABLE = Fault(
    "ledger_unusable",
    Level.FAIL,
    "The ledger cannot be used for another reason, which the sentence has.",
    "Remove that reason; docs/errors.md explains it.",
)
OLDER = Fault(
    "ledger_not_migrated",
    Level.FAIL,
    "The tables of the ledger are those of an older version.",
    "systemctl restart acm-server (or restart `acm server` otherwise): with this version, it migrates the ledger.",
)
NEWER = Fault(
    "ledger_newer",
    Level.FAIL,
    "A newer version has migrated the ledger; this one cannot use it.",
    "Install that version of acm here, too.",
)
ROWS_DAMAGED = Fault(
    "rows_damaged",
    Level.WARN,
    "Damaged rows of commands or agents were set aside.",
    "acm ledger damaged (then check the disk, and `acm prune` removes them)",
)
MESSAGES_REFUSED = Fault(
    "messages_refused",
    Level.WARN,
    "The database refuses messages of agents each time, by a constraint or a trigger.",
    "acm ledger refused (then remove what refuses them, and `acm prune` removes them)",
)
_CHECK, _MIGRATIONS = "ledger", "migrations"
_READ_S = 5.0
_BY_CODE = {
    "older_schema": OLDER,
    "newer_schema": NEWER,
    "ledger_locked": LOCKED,
    "ledger_damaged": DAMAGED,
    "ledger_incomplete": DAMAGED,
    "ledger_read_only": NOT_ACCESSIBLE,
    "ledger_cannot_be_opened": NOT_ACCESSIBLE,
}


def check_ledger(url: str) -> Iterator[Finding]:
    """Open the ledger to read, look for damage for some seconds, and try its lock."""
    try:
        with open_configured_database(url, create=False, read_only=True) as database:
            yield ok(_MIGRATIONS, f"The ledger has the tables of this version (schema {SCHEMA_VERSION}).")
            database.refuse_damaged(_READ_S)
            refuse_unwritable(database)
            yield ok(_CHECK, f"{place_of(database.url)} answers, is sound as far as it was read, and can be written.")
            yield from _set_aside(database)
    except LedgerError as error:
        yield _failure(error)


def with_database(check: str, url: str, ask: Callable[[Database], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what `ask` finds in the database; if it cannot be used, that this was not checked."""
    try:
        with open_configured_database(url, create=False, read_only=True) as database:
            yield from ask(database)
    except (LedgerError, ExposedFileError):
        yield NOT_CHECKED.found(check, "Not checked: the ledger cannot be used; see the check of the ledger.")


def _set_aside(database: Database) -> Iterator[Finding]:
    damaged, refused = count_rows_set_aside(database)
    if damaged:
        verb = "was" if damaged == 1 else "were"
        yield ROWS_DAMAGED.found(_CHECK, f"{counted(damaged, 'damaged row')} {verb} set aside.")
    if refused:
        yield MESSAGES_REFUSED.found(_CHECK, f"The database refuses {counted(refused, 'message')} of agents.")


def _failure(error: LedgerError) -> Finding:
    fault = _BY_CODE.get(error.code)
    if fault is None and isinstance(error, LedgerNotFound):
        fault = MISSING
    elif fault is None:
        fault = UNREACHABLE if isinstance(error, DatabaseUnavailable) else UNUSABLE
    check = _MIGRATIONS if fault in (OLDER, NEWER) else _CHECK
    specific = advised_command(error) if fault in (LOCKED, UNUSABLE) else None
    return fault.found(check, str(error), fix=specific)
