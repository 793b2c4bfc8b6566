"""Cursors: where a page of a list ended, as text that callers pass back unread."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, TypeVar

import msgspec

from broker.errors import InvalidArgument

__all__ = [
    "cursor_of",
    "place_at",
]


_Place = TypeVar("_Place")


def cursor_of(place: tuple[Any, ...]) -> str:
    """Return the values by which a list is ordered, of the last item that was looked at, as a cursor."""
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_at(cursor: str, kind: type[_Place]) -> _Place:
    """Return the values in a cursor, as a tuple of this type; raises InvalidArgument."""
    try:
        return msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=kind)
    except (binascii.Error, UnicodeError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise InvalidArgument(
            "The cursor is not one of this list: pass the `next` of a page of it, with the same filter.",
            code="invalid_cursor",
        ) from error
