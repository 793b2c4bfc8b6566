"""Lists of a command line: the columns that a list has, and which of them, in which order, a user asks for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Generic, TypeVar

from broker.errors import InvalidArgument
from broker.suggestions import did_you_mean
from broker.text import counted

__all__ = [
    "Cell",
    "Column",
    "Listing",
    "Shown",
    "time_column",
]


_Row = TypeVar("_Row")
Cell = str | int | datetime | Sequence[str] | None
"""What a row has in a column; None and an empty text are shown as nothing, and a sequence as its members."""


class Shown(Enum):
    """The formats that show a column that was not asked for by its name."""

    TABLE = "table, wide and plain"
    WIDE = "wide"
    ON_REQUEST = "none"


@dataclass(frozen=True)
class Column(Generic[_Row]):
    """A column: its name on the command line (one word), its value in a row, and where it is shown.

    `style` is how a terminal shows the value in a row (a style of rich), or empty.
    """

    name: str
    value: Callable[[_Row], Cell]
    shown: Shown = Shown.TABLE
    style: Callable[[_Row], str] = lambda _: ""
    is_time: bool = False

    @property
    def header(self) -> str:
        """The column's name as people read it."""
        return self.name.replace("_", " ") + (" (UTC)" if self.is_time else "")


def time_column(name: str, value: Callable[[_Row], datetime | None], shown: Shown = Shown.TABLE) -> Column[_Row]:
    """Return a column of times."""
    return Column(name, value, shown, is_time=True)


@dataclass(frozen=True)
class Listing(Generic[_Row]):
    """A list: the noun for its rows, its columns, a row's name in scripts, and a row as JSON."""

    noun: str
    columns: tuple[Column[_Row], ...]
    name: Callable[[_Row], str]
    document: Callable[[_Row], Any]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names that --columns and --sort accept."""
        return tuple(column.name for column in self.columns)

    def columns_beginning_with(self, incomplete: str) -> list[str]:
        """Return the columns that a shell may complete the last of several names to."""
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in self.column_names if name.startswith(last)]

    def counted(self, count: int) -> str:
        """Return a count with the noun."""
        return counted(count, self.noun)

    def chosen(self, names: str | None, *, wide: bool) -> tuple[Column[_Row], ...]:
        """Return the columns with these names, separated by commas; for None those that are always shown.

        With `wide`, also those that are shown in wide tables. Raises InvalidArgument.
        """
        if names is not None:
            return tuple(self._find(name.strip()) for name in names.split(","))
        shown = {Shown.TABLE, Shown.WIDE} if wide else {Shown.TABLE}
        return tuple(column for column in self.columns if column.shown in shown)

    def arranged(self, *names: str) -> "Listing[_Row]":
        """Return this list with these columns first and shown, and all others on request."""
        first = [replace(self._find(name), shown=Shown.TABLE) for name in names]
        others = [replace(column, shown=Shown.ON_REQUEST) for column in self.columns if column.name not in names]
        return replace(self, columns=(*first, *others))

    def sorted(self, rows: Iterable[_Row], order: str | None) -> Sequence[_Row]:
        """Return the rows sorted by a column, whose name may follow a `-` for the reverse; as they are for None.

        Rows without a value come last. Raises InvalidArgument.
        """
        if order is None:
            return tuple(rows)
        column = self._find(order.removeprefix("-"))
        known: list[tuple[Any, _Row]] = []
        unknown: list[tuple[Any, _Row]] = []
        for row in rows:
            value = column.value(row)
            (unknown if value is None or value == "" else known).append((value, row))
        known.sort(key=lambda pair: pair[0], reverse=order.startswith("-"))
        return tuple(row for _, row in known + unknown)

    def _find(self, name: str) -> Column[_Row]:
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            hint = did_you_mean(name, self.column_names)
            raise InvalidArgument(
                f"There is no column {name[:80]!r}.{hint} There are: {', '.join(self.column_names)}.",
                code="unknown_column",
            )
        return found
