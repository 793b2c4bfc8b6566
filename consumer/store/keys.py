"""The keys of the store's rows, each of which the database holds twice: in the row, and in its index.

A bit that flips in one of them makes the two differ, which is how `PRAGMA integrity_check` finds it.
"""

import re
import sqlite3

from consumer.store.grouped_rows import CONTENT, group_key_in
from consumer.store.row_check import verified
from consumer.store.rows import CANCEL, CHECK, GENERATION, HEAD, SENTINEL

__all__ = ["COLUMNS", "repair_keys"]


_FIXED = (SENTINEL, GENERATION, HEAD, CHECK)
_NUMBERED = re.compile(r"c/\d{16}/.*|[tj]/\d{16}|n/[cr]/\d{16}|[rdx]/.+", re.DOTALL)
_KEYS = "SELECT rowid, CAST(key AS BLOB) FROM Cache {}"
_BESIDE_KEY = "raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
COLUMNS = f"key, {_BESIDE_KEY}"
"""The columns of the table of rows, but for its rowid."""

_COPY = f"INSERT OR IGNORE INTO Cache ({COLUMNS}) SELECT ?, {_BESIDE_KEY} FROM Cache NOT INDEXED WHERE rowid = ?"  # noqa: S608


def repair_keys(connection: sqlite3.Connection) -> None:
    """Make the index again from the rows, and give a row the key of the index if that is the right one.

    Raises sqlite3.Error.
    """
    in_rows = dict(connection.execute(_KEYS.format("NOT INDEXED")))
    in_index = dict(connection.execute(_KEYS.format("INDEXED BY Cache_key_raw")))
    connection.execute("REINDEX")
    for rowid, key in in_rows.items():
        other = in_index.get(rowid, key)
        if other == key:
            continue
        (value,) = connection.execute("SELECT value FROM Cache NOT INDEXED WHERE rowid = ?", (rowid,)).fetchone()
        if not _is_right(other, value):
            continue
        if not _is_right(key, value):
            connection.execute("UPDATE Cache SET key = ? WHERE rowid = ?", (other.decode(), rowid))
        elif other.startswith(CANCEL.encode()):
            # Its content does not tell which one is right: the command that is not known is cancelled without harm.
            connection.execute(_COPY, (other.decode(), rowid))


def _is_right(key: object, value: object) -> bool:
    """Return whether the agent may have written this key for this content: the check of a row names its key."""
    content = value if isinstance(value, bytes) else b""
    try:
        text = key.decode() if isinstance(key, bytes) else ""
        if text.startswith(CONTENT):
            return text == group_key_in(content)
        verified(text, content)
    except ValueError:
        return False
    return text in _FIXED or _NUMBERED.fullmatch(text) is not None
