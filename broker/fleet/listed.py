"""Lists with numbered pages."""

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = [
    "Listed",
]


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Listed(Generic[_Item]):
    """Some of the items in a list, which has `total` of them."""

    items: tuple[_Item, ...]
    total: int
