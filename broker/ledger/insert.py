"""Inserting rows that another transaction may insert at the same time."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import sqlalchemy as sa

__all__ = [
    "insert_missing",
    "replace_row",
]


def insert_missing(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Within a transaction, insert the rows whose primary key is missing; others stay as they are.

    On PostgreSQL this waits for a transaction that is inserting the same key. Give rows in the order of their keys.
    """
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), list(rows))


def replace_row(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Within a transaction, insert a row, or give the row with its primary key these values."""
    keys = [column.name for column in table.primary_key]
    values = {name: value for name, value in row.items() if name not in keys}
    connection.execute(_insert(connection, table).on_conflict_do_update(index_elements=keys, set_=values), dict(row))


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """Return an INSERT that takes ON CONFLICT, which SQLite has from PostgreSQL.

    Only the dialect in use is imported: that of PostgreSQL takes an eighth of the start of `acm show`.
    """
    return import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(table)
