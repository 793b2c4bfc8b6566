"""Lists that are read in pages."""

from collections.abc import Callable
from typing import TypeVar

from broker.fleet.models import MAX_PAGE, PageOf

__all__ = [
    "read_pages",
]


_Item = TypeVar("_Item")


def read_pages(page: Callable[[str | None, int], PageOf[_Item]], limit: int | None = None) -> list[_Item]:
    """Return the first items of a list, all of them if `limit` is None; `page` takes a cursor and a limit."""
    items: list[_Item] = []
    cursor: str | None = None
    while True:
        read = page(cursor, MAX_PAGE if limit is None else min(limit - len(items), MAX_PAGE))
        items += read.items
        cursor = read.next
        if cursor is None or (limit is not None and len(items) >= limit):
            return items
