"""The header Range of downloads (RFC 9110 section 14)."""

import re
from http import HTTPStatus

from starlette.exceptions import HTTPException

__all__ = [
    "range_of",
]


_ONE_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?|bytes=-(\d{1,18})")


def range_of(header: str | None, size: int) -> range | None:
    """Return the bytes that are asked for, or None for all: also for several ranges, which a server may ignore.

    Raises HTTPException (416) if there are none of these bytes.
    """
    found = _ONE_RANGE.fullmatch(header or "")
    if found is None:
        return None
    first, last, length = (None if text is None else int(text) for text in found.groups())
    if first is None:
        wanted = range(max(0, size - (length or 0)), size)
    elif last is not None and last < first:
        return None  # it is invalid, so it is none
    else:
        wanted = range(first, size if last is None else min(size, last + 1))
    if not wanted:
        raise HTTPException(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"The blob has {size} bytes, and none of those in the header Range.",
            {"Content-Range": f"bytes */{size}"},
        )
    return wanted
