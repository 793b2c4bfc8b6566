"""Whose database it is. A ledger has a mark of ours, so that no other program's database is changed by mistake.

SQLite has an application id for that, in the file's header; PostgreSQL a comment on the table `schema_version`. The
ledgers of versions that set no mark are recognized by their tables, and get it when they are migrated.
"""

import sqlalchemy as sa

from broker.errors import LedgerError
from broker.ledger.location import LedgerUrlError

__all__ = [
    "holds_ledger",
    "set_mark",
]


_APPLICATION_ID = 0x61636D01  # "acm", 1
_COMMENT = "agent-command-manager"
_VERSION = "schema_version"
_COLUMNS = {  # of every version
    "agents": {"name", "epoch", "next_number", "store_generation", "incarnation", "online", "attempts"},
    "commands": {"id", "agent", "epoch", "number", "body", "state", "to_send", "cancel", "created_at"},
}
_SHOWN = 3
_TABLES_OF_EXTENSIONS = (
    "SELECT relname FROM pg_class JOIN pg_depend ON objid = pg_class.oid"
    " WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND relnamespace::regnamespace::text = current_schema()"
)


def holds_ledger(connection: sa.Connection, place: str) -> bool:
    """Return whether the database holds a ledger; False if it is empty. `place` is its place for messages.

    Raises LedgerUrlError if it is another program's, and LedgerError for a ledger without some of its tables.
    """
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names()) - _tables_of_extensions(connection)
    marked = _has_mark(connection, tables)
    if not tables and marked is not False:
        return False
    if not marked and (marked is False or not _has_columns(inspector, tables)):
        raise _not_ours(place, tables)
    missing = _COLUMNS.keys() - tables
    if _VERSION not in tables and (marked or "operations" in tables):
        missing |= {_VERSION}
    if missing:
        raise LedgerError(
            f"The ledger {place} lacks its table {min(missing)}: restore a whole backup (docs/operations.md).",
            code="ledger_incomplete",
        )
    return True


def set_mark(connection: sa.Connection) -> None:
    """Within the transaction that creates or migrates the tables, mark the database as a ledger."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")
    else:
        connection.exec_driver_sql(f"COMMENT ON TABLE {_VERSION} IS '{_COMMENT}'")


def _has_mark(connection: sa.Connection, tables: set[str]) -> bool | None:
    """Return whether the mark is ours; None if there is none, and False if it is another program's."""
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        return found == _APPLICATION_ID if found else None
    if _VERSION not in tables:
        return None
    return sa.inspect(connection).get_table_comment(_VERSION)["text"] == _COMMENT or None


def _has_columns(inspector: sa.Inspector, tables: set[str]) -> bool:
    return all(
        table in tables and columns <= {column["name"] for column in inspector.get_columns(table)}
        for table, columns in _COLUMNS.items()
    )


def _tables_of_extensions(connection: sa.Connection) -> set[str]:
    if connection.dialect.name == "sqlite":
        return set()
    return set(connection.scalars(sa.text(_TABLES_OF_EXTENSIONS)))


def _not_ours(place: str, tables: set[str]) -> LedgerUrlError:
    names = ", ".join(sorted(tables)[:_SHOWN]) + (", …" if len(tables) > _SHOWN else "")
    what = f"it has the tables {names}, which are not a ledger's" if tables else "its application id is not a ledger's"
    return LedgerUrlError(
        f"{place} is the database of another program: {what}; nothing was changed. Name the ledger, or a new place for "
        "one, by --ledger, ACM_LEDGER or the configuration file.",
        code="not_a_ledger",
    )
