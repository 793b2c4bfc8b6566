"""Where the ledger is: its URL, read and checked before anything is opened."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from broker.errors import LedgerError
from broker.system.files import resolved

__all__ = [
    "LedgerNotFound",
    "LedgerUrlError",
    "beside",
    "is_in_memory",
    "ledger_url",
    "place_of",
    "sqlite_file",
    "with_absolute_path",
]


_ADVICE = "write sqlite:///PATH or postgresql://USER@HOST/DATABASE"
# `postgres` is what other programs call it. Without a driver, SQLAlchemy would take one that nothing here installs.
_SCHEMES = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
# A port and a path before the only `@`: SQLAlchemy would take the port for a password, and what follows for the host.
_AT_IN_QUERY = re.compile(r"(?:\[[^\]]*\](?::\d+)?|[^:/?#\[\]@]*:\d+)/[^?@]*\?[^@]*@")

_OF_PSYCOPG = {"autocommit", "conninfo", "context", "cursor_factory", "row_factory"}  # no text is a value of theirs


class LedgerUrlError(LedgerError):
    """The URL of the ledger is wrong, or names something that cannot hold a ledger."""

    code = "bad_ledger_url"


class LedgerNotFound(LedgerError):
    """There is no ledger at its URL, and the command would not create one."""

    code = "ledger_not_found"


def ledger_url(text: str) -> sa.URL:
    """Read the URL of a ledger. Raises LedgerUrlError, whose text has no part of a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # its text may quote the password
        raise LedgerUrlError(f"The ledger's URL cannot be read: {_ADVICE}.") from None
    scheme = _SCHEMES.get(url.drivername)
    if scheme is None:
        raise LedgerUrlError(
            f"The ledger cannot be in {url.drivername[:80]!r}: {_ADVICE}.", code="unsupported_database"
        )
    if scheme != "sqlite" and not url.database:
        raise LedgerUrlError(f"The ledger's URL names no database: {_ADVICE}.")
    if scheme == "sqlite":
        _refuse_host_and_options(url)
    else:
        _refuse_ambiguous(text.partition("://")[2], url)
    return url.set(drivername=scheme)


def _refuse_host_and_options(url: sa.URL) -> None:
    """Refuse what a file has not: SQLAlchemy would raise its own error for it, once the file exists."""
    if url.host is not None:
        raise _refusal("names a host; write sqlite:///PATH, with one more `/` for an absolute path")
    try:
        url.get_dialect()().create_connect_args(url)
    except (TypeError, ValueError):
        raise _refusal("has an option in its query that SQLite's driver does not take") from None


def _refuse_ambiguous(text: str, url: sa.URL) -> None:
    """Refuse what could be read in two ways: a piece of the password would be the host, and so be shown."""
    if text.count("@") > 1 or _AT_IN_QUERY.match(text):
        raise _refusal("has an `@` that does not end the password; write it as %40")
    if " " in text.rpartition("@")[0] or not text.isprintable():
        raise _refusal("has a blank or a control character; write it as %XX, a blank as %20")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _refusal("has a %XX that is not UTF-8; write `%` itself as %25") from None
    if "\0" in decoded:
        raise _refusal("has the character U+0000, which no name and no password has in PostgreSQL")
    if not all(isinstance(value, str) for value in url.query.values()):
        raise _refusal("gives an option of its query twice")
    if found := _OF_PSYCOPG & url.query.keys():
        raise _refusal(f"has the option {min(found)} in its query, which is for Python programs")


def _refusal(what: str) -> LedgerUrlError:
    return LedgerUrlError(f"The ledger's URL {what}.")


def is_in_memory(url: sa.URL) -> bool:
    """Whether a SQLite database is lost with the process."""
    database = url.database or ""
    named = database.startswith("file:") and (":memory:" in database or url.query.get("mode") == "memory")
    return url.get_backend_name() == "sqlite" and (database in ("", ":memory:") or named)


def sqlite_file(url: sa.URL) -> Path | None:
    """Return the file of a SQLite database; None in memory, and for another database."""
    database = url.database or ""
    if url.get_backend_name() != "sqlite" or is_in_memory(url):
        return None
    return Path(database.removeprefix("file:").partition("?")[0])


def beside(file: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to a SQLite database: beside the database, not beside a link to it."""
    return Path(f"{os.path.realpath(file)}{suffix}")


def place_of(url: sa.URL) -> str:
    """Return where the ledger is, for messages: a path, or a URL without its password and its query."""
    file = sqlite_file(url)
    shown = url.set(drivername=url.get_backend_name(), query={})
    return str(file) if file else shown.render_as_string(hide_password=True)


def with_absolute_path(text: str) -> str:
    """Return the URL, for a SQLite file with its absolute path. Raises LedgerUrlError, whose text has no password."""
    url = ledger_url(text)
    if url.get_backend_name() != "sqlite" or not url.database:
        return text
    return url.set(database=str(resolved(Path(url.database)))).render_as_string(hide_password=False)
