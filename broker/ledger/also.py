"""What a caller of the ledger writes in the same transaction, so that neither is there without the other."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

__all__ = [
    "Also",
    "nothing_else",
]


_Done = TypeVar("_Done")
Also = Callable[[sa.Connection, _Done], None]
"""Is called before the commit, with what was done. What it raises rolls everything back. It may be called again."""


def nothing_else(connection: sa.Connection, done: object) -> None:
    """Write nothing."""
