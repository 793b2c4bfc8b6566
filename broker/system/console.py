"""Prints views for people so that nothing in them is lost: in a terminal of any width, and in a pipe."""

from rich.console import Console, RenderableType
from rich.table import Table

__all__ = ["print_view"]


_UNBOUNDED = 1 << 20  # columns
_HEIGHT = 25  # without a height, rich takes a dumb terminal for 80 columns wide


def print_view(view: RenderableType) -> None:
    """Print a view on stdout. A table is never cut.

    Where a table's words do not fit into the terminal, and outside a terminal, it has one line per row: plain columns
    as wide as their content, without borders, which other programs can read.
    """
    console = Console()
    if isinstance(view, Table):
        unbounded = Console(width=_UNBOUNDED, height=_HEIGHT)
        if not console.is_terminal or unbounded.measure(view).minimum > console.width:
            _print_plain(view, unbounded)
            return
    console.print(view)


def _print_plain(table: Table, console: Console) -> None:
    table.box, table.padding, table.title_justify = None, (0, 2, 0, 0), "left"
    console.width = console.measure(table).maximum
    with console.capture() as captured:
        console.print(table)
    print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n")
