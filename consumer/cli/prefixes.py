"""The rows of one command, named by the beginning of its id."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from broker.suggestions import only_beginning_with
from consumer.errors import ConsumerError

__all__ = ["of_command"]


_Row = TypeVar("_Row")


def of_command(rows: Sequence[_Row], id_of: Callable[[_Row], str | None], given: str | None) -> Sequence[_Row]:
    """Return the rows of the only command whose id begins so, or all rows for None.

    Raises AmbiguousId, and ConsumerError if there is none.
    """
    if given is None:
        return rows
    wanted = only_beginning_with(given, {name for row in rows if (name := id_of(row)) is not None})
    if wanted is None:
        raise ConsumerError(f"There is no command whose id begins with {given[:80]!r} here.", code="unknown_id")
    return [row for row in rows if id_of(row) == wanted]
