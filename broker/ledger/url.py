"""The database URL of the ledger."""

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from broker.errors import LedgerError

__all__ = [
    "with_absolute_path",
]


def with_absolute_path(url: str) -> str:
    """Return the URL, for a SQLite file with its absolute path. Raises LedgerError, whose text has none of the URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:  # its text may quote the password
        raise LedgerError("The ledger's URL cannot be parsed; write sqlite:///PATH.", code="bad_ledger_url") from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return url
    return parsed.set(database=str(Path(parsed.database).resolve())).render_as_string(hide_password=False)
