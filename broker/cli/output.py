"""Output of acm: JSON for programs; for people, text that cannot control the terminal."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import typer
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from broker.system.console import print_view
from broker.system.signals import raising_on_term
from broker.text import counted, printable, printable_line

__all__ = [
    "id_column",
    "literal",
    "minute",
    "named_if_it_fails",
    "newest_of",
    "print_json",
    "print_result",
    "print_text",
    "second",
    "table",
]

_T = TypeVar("_T")


def print_result(document: Any, view: RenderableType, *, as_json: bool) -> None:
    """Print `document` as JSON for programs, or `view` for people."""
    if as_json:
        print_json(document)
    elif isinstance(view, str):
        print_text(view)
    else:
        print_view(view)


def print_text(text: str, *, to_stderr: bool = False) -> None:
    """Print text that may come from others, so that it cannot control the terminal."""
    typer.echo(printable(text), err=to_stderr)


@contextlib.contextmanager
def named_if_it_fails(kind: str, name: str, look: str) -> Iterator[None]:
    """Print the id of what was sent if the block is interrupted or raises: it is processed nevertheless."""
    try:
        with raising_on_term():
            yield
    except BaseException:
        print_text(f"acm: The {kind} {name} was sent, and continues. Check it with `{look}`.", to_stderr=True)
        raise


def print_json(document: Any) -> None:
    """Print one JSON document on one line, in ASCII: what could control a terminal is escaped."""
    typer.echo(json.dumps(document))


def table(title: str, columns: Iterable[str | Column], rows: Iterable[Iterable[str | Text]]) -> Table:
    """Return a table; its title and its strings are shown literally."""
    made = Table(*columns, title=Text(printable_line(title), "italic"))
    for row in rows:
        made.add_row(*(literal(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def newest_of(rows: Sequence[_T], limit: int, singular: str) -> tuple[Sequence[_T], str]:
    """Return at most `limit` of the rows, and their number for people, which says whether there are more."""
    more = " shown; there are more, see --limit" if len(rows) > limit else ""
    return rows[:limit], counted(min(len(rows), limit), singular) + more


def id_column(name: str = "id", width: int = 36) -> Column:
    """Return a column that is never folded: users copy its values."""
    return Column(name, min_width=width)


def literal(text: str) -> Text:
    """Return text from others on one line, so that it neither controls the terminal nor is read as markup."""
    return Text(printable_line(text))


def minute(moment: datetime | None) -> str:
    """Return a time in UTC for people, to the minute; empty for None."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def second(moment: datetime | None) -> str:
    """Return a time in UTC for people, to the second; empty for None."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""
