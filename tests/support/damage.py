"""Damages single values in a ledger's database, as a flipped bit on its disk does."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import sql

from tests.support.postgresql import direct

__all__ = ["overwrite"]


def overwrite(url: str, column: sa.Column, key: str, content: bytes | int | None) -> None:
    """Give a column of the row with this primary key another content; bytes become its text, also if not UTF-8."""
    (key_column,) = column.table.primary_key
    if url.startswith("sqlite"):
        value = "CAST(? AS TEXT)" if isinstance(content, bytes) else "?"
        statement = f"UPDATE {column.table.name} SET {column.name} = {value} WHERE {key_column.name} = ?"
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            assert connection.execute(statement, (content, key)).rowcount == 1
            connection.commit()
    else:
        with _without_encoding(url) as connection:
            value = "convert_from(%b, 'SQL_ASCII')" if isinstance(content, bytes) else "%s"
            names = [sql.Identifier(name) for name in (column.table.name, column.name, key_column.name)]
            statement = sql.SQL(f"UPDATE {{}} SET {{}} = {value} WHERE {{}} = %s").format(*names)
            assert connection.execute(statement, (content, key)).rowcount == 1


@contextmanager
def _without_encoding(url: str) -> Iterator[psycopg.Connection]:
    """Connect to a database that believes to have no encoding meanwhile, so that it takes any bytes."""
    plain = direct(url).replace("postgresql+psycopg", "postgresql")
    name = plain.rpartition("/")[2]
    encode = "UPDATE pg_database SET encoding = pg_char_to_encoding(%s) WHERE datname = %s"
    with psycopg.connect(plain.rpartition("/")[0] + "/postgres", autocommit=True) as outside:
        outside.execute(encode, ("SQL_ASCII", name))
        try:
            with psycopg.connect(plain, autocommit=True) as connection:
                yield connection
        finally:
            outside.execute(encode, ("UTF8", name))
