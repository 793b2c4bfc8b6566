"""Output of acm-agent: JSON for programs, and for people text that cannot control the terminal."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import typer

from broker.text import printable, printable_line

__all__ = ["print_content", "print_members", "print_table"]


_T = TypeVar("_T")


def print_content(content: _T, view: Callable[[_T], None], *, as_json: bool) -> None:
    """Print the content as one JSON document, or let `view` print it for people."""
    if as_json:
        typer.echo(json.dumps(content))
    else:
        view(content)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> None:
    """Print a table whose cells are printed literally, without markup or control sequences."""
    from rich.table import Table
    from rich.text import Text

    from broker.system.console import print_view

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(Text(printable_line(cell or "")) for cell in row))
    print_view(table)


def print_members(title: str, members: dict[str, Any]) -> None:
    """Print a title and one line for each member."""
    typer.echo(title)
    for name, value in members.items():
        typer.echo(printable(f"  {name:<14}{value}"))
