"""The check of a row: a hash of its key and its content, the last member of its JSON object, compared when it is read.

A disk can return other bytes than were written, and SQLite's own checks do not see that within a row. A row of an
earlier version has no check; that version ignores the member. What resembles a check is an altered one: otherwise one
flip in its name would hide all later ones in the row.
"""

import hashlib
import operator

__all__ = ["UNREADABLE_ROW", "verified", "with_check", "without_check"]


UNREADABLE_ROW = ("row_unreadable", "foreign_row")
"""The codes of StoreError for a row whose content cannot be used; the other rows are not affected."""
_BEGIN, _DIGITS, _END = b',"check":"', 32, b'"}'
_SIZE = len(_BEGIN) + _DIGITS + len(_END)
_ALIKE = 6  # of the bytes of _BEGIN; a hash in their place has three of them at most


def with_check(key: str, row: bytes) -> bytes:
    """Return a row, an object that is not empty, with its check."""
    return row[:-1] + _BEGIN + _hash(key, row) + _END


def verified(key: str, row: bytes) -> bytes:
    """Return the row without its check; raises ValueError if it was altered since it was written."""
    content = without_check(row)
    if content is not row and _hash(key, content) != row[len(_BEGIN) - _SIZE : -len(_END)]:
        raise ValueError("its content is not what was written")
    return content


def without_check(row: bytes) -> bytes:
    """Return the row without its check, as it is."""
    begin = row[-_SIZE : len(_BEGIN) - _SIZE]
    if begin == _BEGIN or sum(map(operator.eq, begin, _BEGIN)) >= _ALIKE:
        return row[:-_SIZE] + b"}"
    return row


def _hash(key: str, row: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + row).hexdigest()[:_DIGITS].encode()
