"""Identifiers of commands: UUIDs of version 7, which sort by creation time, and finding one by its beginning."""

import re
import secrets
import time
import uuid
from typing import Any

import sqlalchemy as sa

__all__ = [
    "ids_beginning_with",
    "new_id",
]


_HEX_DIGITS = 32
_BEGINNING = re.compile(r"[0-9a-f]{1,32}")
_MOST_IDS = 3
_MOST_LOOKED_AT = 500


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562 section 5.7) as text: 48 bits of milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    bits = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=bits & ~(0x3 << 62) | 0x2 << 62))


def ids_beginning_with(
    connection: sa.Connection, column: sa.Column[Any], beginning: str, *conditions: sa.ColumnElement[bool]
) -> list[str]:
    """Return the first ids of a column that begin with a text, at most three; capitals and dashes are not compared.

    With conditions, only those of rows to which they apply, among the first 500 that begin so.

    Only UUIDs are found. They are looked for between two whole ones, since those have the same order in each collation,
    and so in the index.
    """
    digits = beginning.lower().replace("-", "")
    if not _BEGINNING.fullmatch(digits):
        return []
    low, high = (str(uuid.UUID(digits.ljust(_HEX_DIGITS, digit))) for digit in "0f")
    found = sa.select(column).where(column.between(low, high)).order_by(column)
    if conditions:
        found = sa.select(column).where(column.in_(found.limit(_MOST_LOOKED_AT)), *conditions).order_by(column)
    return list(connection.scalars(found.limit(_MOST_IDS)))
