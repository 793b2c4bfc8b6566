"""Lists in the page: their filters, and the addresses of their other pages."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from starlette.datastructures import URL

from broker.errors import InvalidArgument
from broker.fleet.models import PageOf

__all__ = [
    "Numbered",
    "address_with",
    "asked_page",
    "chosen",
    "gathered",
]


_Choice = TypeVar("_Choice", bound=StrEnum)
_Item = TypeVar("_Item")
_MOST_PAGES = 1_000_000
_MOST_READS = 8  # of pages in which a filter has left little


def chosen(choices: type[_Choice], text: str) -> _Choice | None:
    """Return the member of this value, or None for no text. Raises InvalidArgument."""
    if not text:
        return None
    try:
        return choices(text)
    except ValueError:
        raise InvalidArgument(f"{text[:80]!r} is none of {', '.join(choices)}.") from None


def asked_page(text: str) -> int:
    """Return the number of a page, from 1 on; 1 for what is none."""
    return min(max(1, int(text)), _MOST_PAGES) if text.isascii() and text.isdigit() and len(text) < 8 else 1


def gathered(
    read: Callable[[str | None, int], PageOf[_Item]], cursor: str | None, size: int
) -> tuple[list[_Item], str | None]:
    """Return at most `size` items from a cursor on, and the cursor for more, by as few reads as there must be."""
    items: list[_Item] = []
    for _ in range(_MOST_READS):
        page = read(cursor, size - len(items))
        items += page.items
        cursor = page.next
        if cursor is None or len(items) >= size:
            break
    return items, cursor


def address_with(url: URL, **parameters: str | int) -> str:
    """Return an address of the page with other parameters in its query."""
    changed = url.include_query_params(**parameters)
    return f"{changed.path}?{changed.query}"


@dataclass(frozen=True)
class Numbered:
    """The page `number` of a list with `total` items, of which one page has `size`."""

    url: URL
    number: int
    size: int
    total: int

    @property
    def first(self) -> int:
        """The place of the first item on this page, from 1 on."""
        return (self.number - 1) * self.size + 1

    @property
    def last(self) -> int:
        """The place of the last item on this page."""
        return min(self.number * self.size, self.total)

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.total // self.size))

    @property
    def previous(self) -> str | None:
        """The address of the page before, if there is one."""
        return address_with(self.url, page=min(self.number - 1, self.pages)) if self.number > 1 else None

    @property
    def following(self) -> str | None:
        """The address of the next page, if there is one."""
        return address_with(self.url, page=self.number + 1) if self.number < self.pages else None

    def sorted_by(self, order: str, *, descending: bool) -> str:
        """Return the address of this list in another order, from its first page on."""
        return address_with(self.url.remove_query_params("page"), sort=order, order="desc" if descending else "asc")
