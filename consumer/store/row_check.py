"""The check of a row: a hash of its key and its content, the last member of its JSON object, compared when it is read.

A disk can return other bytes than were written, and SQLite's own checks do not see that within a row. A row of an
earlier version has no check; that version ignores the member.
"""

import hashlib
import re

__all__ = ["UNREADABLE_ROW", "verified", "with_check", "without_check"]


UNREADABLE_ROW = ("row_unreadable", "foreign_row")
"""The codes of StoreError for a row whose content cannot be used; the other rows are not affected."""
_DIGITS = 32
_CHECK = re.compile(rb',"check":"([0-9a-f]{%d})"\}\Z' % _DIGITS)


def with_check(key: str, row: bytes) -> bytes:
    """Return a row, an object that is not empty, with its check."""
    return row[:-1] + b',"check":"' + _hash(key, row) + b'"}'


def verified(key: str, row: bytes) -> bytes:
    """Return the row without its check; raises ValueError if it was altered since it was written."""
    found = _CHECK.search(row, len(row) - _DIGITS - 20 if len(row) > _DIGITS + 20 else 0)
    if found is None:
        return row
    content = row[: found.start()] + b"}"
    if _hash(key, content) != found[1]:
        raise ValueError("its content is not what was written")
    return content


def without_check(row: bytes) -> bytes:
    """Return the row without its check, as it is."""
    found = _CHECK.search(row)
    return row if found is None else row[: found.start()] + b"}"


def _hash(key: str, row: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + row).hexdigest()[:_DIGITS].encode()
