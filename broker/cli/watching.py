"""Lists that follow what happens: rows are printed as they come, or again when they have changed."""

from collections.abc import Callable, Sequence
from threading import Event
from typing import Generic, Protocol, TypeVar

from broker.console.formats import ListFormat, ListOptions, print_document, print_lines, row_lines
from broker.console.listing import Cell, Listing

__all__ = [
    "EachPause",
    "RowsAsTheyCome",
    "watch_list",
]


_Row = TypeVar("_Row")
_LONGEST_PAUSE_S = 1.0


class RowsAsTheyCome(Generic[_Row]):
    """Prints rows one after the other: plain lines for people, and for programs one document a row.

    Raises InvalidArgument for a column that does not exist.
    """

    def __init__(self, listing: Listing[_Row], options: ListOptions) -> None:
        self.columns = listing.chosen(options.columns, wide=options.format is ListFormat.WIDE)
        self._listing = listing
        self._format = options.chosen_format
        self._headers = options.headers
        self._widths = [len(column.name) if options.headers else 0 for column in self.columns]

    def print(self, rows: Sequence[_Row]) -> None:
        """Print more rows; before the first ones the names of the columns."""
        if self._format is ListFormat.NAME:
            print_lines([self._listing.name(row) for row in rows])
        elif self._format in (ListFormat.JSON, ListFormat.YAML):
            for row in rows:
                print_document(self._listing.document(row), self._format, is_one_of_many=True)
        else:
            print_lines(row_lines(self.columns, rows, self._widths, headers=self._headers))
            self._headers = False


class Waits(Protocol):
    """What waits until there may be something new, at most so many seconds: the ledger's `Changes`, or `EachPause`."""

    def wait(self, timeout_s: float) -> bool:
        """Return whether there may be something new."""


class EachPause:
    """There may be something new after each pause: an API is asked again and again."""

    def wait(self, timeout_s: float) -> bool:
        """Pause; then there may be something new."""
        return not Event().wait(timeout_s)


def watch_list(
    listing: Listing[_Row], read: Callable[[], Sequence[_Row]], options: ListOptions, changes: Waits
) -> None:
    """Print the rows that `read` returns, and again each that is new or has changed, until the process is interrupted.

    Rows of a list are printed in its order; what is removed from it is not reported. Raises InvalidArgument.
    """
    shown = RowsAsTheyCome(listing, options)
    known: dict[str, list[Cell]] = {}
    while True:
        rows = listing.sorted(read(), options.sort)
        cells = {listing.name(row): [column.value(row) for column in shown.columns] for row in rows}
        shown.print([row for row in rows if known.get(listing.name(row)) != cells[listing.name(row)]])
        known = cells
        changes.wait(_LONGEST_PAUSE_S)
