"""The formats of what a command line prints: documents and lists, for people and for programs.

rich is imported for tables alone, and PyYAML for YAML alone: both take longer to import than the rest.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from broker.console.listing import Cell, Column, Listing
from broker.text import printable_line

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "DocumentFormat",
    "ListFormat",
    "ListOptions",
    "fact_lines",
    "list_table",
    "plain_lines",
    "print_document",
    "print_json",
    "print_lines",
    "print_list",
    "row_lines",
]


_Row = TypeVar("_Row")
_GAP = "  "  # between columns
_UNBOUNDED = 1 << 20  # terminal columns
_HEIGHT = 25  # without a height, rich takes a dumb terminal for 80 columns wide


class DocumentFormat(StrEnum):
    """How a command prints one thing."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


class ListFormat(StrEnum):
    """How a command prints a list."""

    TABLE = "table"
    WIDE = "wide"
    PLAIN = "plain"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True)
class ListOptions:
    """What a user asks for of a list; `format` None is a table on a terminal, and plain lines elsewhere."""

    format: ListFormat | None = None
    columns: str | None = None
    sort: str | None = None
    headers: bool = True
    watch: bool = False

    @property
    def chosen_format(self) -> ListFormat:
        """The format, by the kind of stdout if none was asked for."""
        if self.format is not None:
            return self.format
        return ListFormat.TABLE if sys.stdout.isatty() else ListFormat.PLAIN

    @property
    def has_title(self) -> bool:
        """Whether the format has a title, which says how many rows there are."""
        return self.headers and self.chosen_format in (ListFormat.TABLE, ListFormat.WIDE)


def print_document(document: Any, form: DocumentFormat | ListFormat, *, is_one_of_many: bool = False) -> None:
    """Print a document as YAML or JSON; in YAML, one of many begins with a line of dashes."""
    if form in (DocumentFormat.YAML, ListFormat.YAML):
        if is_one_of_many:
            typer.echo("---")
        _print_yaml(document)
    else:
        print_json(document)


def print_json(document: Any) -> None:
    """Print one JSON document on one line, in ASCII: what could control a terminal is escaped."""
    typer.echo(json.dumps(document))


def _print_yaml(document: Any) -> None:
    import yaml

    plain = json.loads(json.dumps(document))  # PyYAML knows no subclasses of str
    typer.echo(yaml.safe_dump(plain, sort_keys=False, width=sys.maxsize), nl=False)


def print_list(listing: Listing[_Row], rows: Sequence[_Row], options: ListOptions, title: str) -> None:
    """Print rows in the format that was asked for; nothing of them is ever cut. Raises InvalidArgument."""
    form = options.chosen_format
    columns = listing.chosen(options.columns, wide=form is ListFormat.WIDE)
    rows = listing.sorted(rows, options.sort)
    if form is ListFormat.NAME:
        print_lines([printable_line(listing.name(row)) for row in rows])
    elif form is ListFormat.PLAIN:
        print_lines(plain_lines(columns, rows, headers=options.headers))
    elif form in (ListFormat.TABLE, ListFormat.WIDE):
        _print_table(columns, rows, title if options.headers else None)
    else:
        print_document([listing.document(row) for row in rows], form)


def plain_lines(columns: Sequence[Column[_Row]], rows: Sequence[_Row], *, headers: bool) -> list[str]:
    """Return aligned lines, one for a row, with two spaces or more between columns and `-` for no value."""
    return row_lines(columns, rows, [0] * len(columns), headers=headers)


def row_lines(columns: Sequence[Column[_Row]], rows: Sequence[_Row], widths: list[int], *, headers: bool) -> list[str]:
    """Return lines as `plain_lines` does, aligned with those before: `widths` are of those, and are updated."""
    cells = [[_plain(column.value(row)) for column in columns] for row in rows]
    if headers:
        cells.insert(0, [column.name for column in columns])
    for line in cells:
        widths[:] = map(max, widths, map(len, line))
    return [_GAP.join(map(str.ljust, line, widths)).rstrip() for line in cells]


def fact_lines(columns: Sequence[Column[_Row]], row: _Row) -> list[str]:
    """Return one row for people, a line for each column that has a value."""
    facts = [(column.header, _text(column.value(row), ", ")) for column in columns]
    width = max(len(header) for header, _ in facts)
    return [f"{header:{width}}{_GAP}{text}" for header, text in facts if text]


def print_lines(lines: Sequence[str]) -> None:
    """Print lines that cannot control the terminal."""
    if lines:
        typer.echo("\n".join(lines))


def _plain(cell: Cell) -> str:
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%dT%H:%M:%SZ}"
    return _text(cell, ",") or "-"


def _text(cell: Cell, separator: str) -> str:
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M:%S}"
    if cell is None or isinstance(cell, str | int):
        return "" if cell is None else printable_line(str(cell))
    return separator.join(map(printable_line, cell))


def _print_table(columns: Sequence[Column[_Row]], rows: Sequence[_Row], title: str | None) -> None:
    from rich.console import Console

    console = Console()
    table = list_table(columns, rows, console.width if console.is_terminal else _UNBOUNDED, headers=title is not None)
    if title is not None:
        typer.echo(printable_line(title))
    if table is None:
        print_lines(plain_lines(columns, rows, headers=title is not None))
        return
    if not console.is_terminal:
        console = Console(width=_UNBOUNDED, height=_HEIGHT)
    with console.capture() as captured:
        console.print(table)
    print_lines([line.rstrip() for line in captured.get().splitlines()])


def list_table(columns: Sequence[Column[_Row]], rows: Sequence[_Row], room: int, *, headers: bool) -> "Table | None":
    """Return rows as a table of at most `room` terminal columns; None if their longest words do not fit."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[_text(column.value(row), ", ") for column in columns] for row in rows]
    texts = list(zip([column.header for column in columns], *cells, strict=True))
    widths = _fitted(
        [max(map(cell_len, it)) for it in texts],
        [
            max(cell_len(word) for text in it for word in ([text] if column.is_time else text.split()))  # rich cuts it
            for column, it in zip(columns, texts, strict=True)
        ],
        room - len(_GAP) * (len(columns) - 1),
    )
    if widths is None:
        return None
    table = Table(box=None, padding=(0, len(_GAP), 0, 0), pad_edge=False, show_header=headers)
    for column, width in zip(columns, widths, strict=True):
        is_number = any(isinstance(column.value(row), int) for row in rows)
        table.add_column(column.header, justify="right" if is_number else "left", width=width)
    for row, line in zip(rows, cells, strict=True):
        table.add_row(*(Text(cell, column.style(row)) for column, cell in zip(columns, line, strict=True)))
    return table


def _fitted(widths: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """Return the widths, the widest made smaller until all fit, but none below its least one; None if they do not."""
    fitted = [max(low, min(width, room)) for width, low in zip(widths, least, strict=True)]
    while sum(fitted) > room:
        wide = [number for number, width in enumerate(fitted) if width > least[number]]
        if not wide:
            return None
        fitted[max(wide, key=fitted.__getitem__)] -= 1
    return fitted
