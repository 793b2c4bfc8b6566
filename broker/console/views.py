"""Prints views for people so that nothing in them is lost: in a terminal of any width, and in a pipe."""

from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from broker.system.findings import Finding, Level
from broker.text import printable_line

__all__ = ["findings_view", "print_view"]


_UNBOUNDED = 1 << 20  # columns
_HEIGHT = 25  # without a height, rich takes a dumb terminal for 80 columns wide
_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def print_view(view: RenderableType) -> None:
    """Print a view on stdout. A table is never cut, and no line of a Text is folded: its commands can be copied.

    Where a table's words do not fit into the terminal, and outside a terminal, it has one line per row: plain columns
    as wide as their content, without borders, which other programs can read. Outside a terminal, no other line is
    folded either, and a panel has no border.
    """
    console = Console()
    if isinstance(view, Table):
        unbounded = Console(width=_UNBOUNDED, height=_HEIGHT)
        if not console.is_terminal or unbounded.measure(view).minimum > console.width:
            _print_plain(view, unbounded)
            return
    if console.is_terminal:
        console.print(view, soft_wrap=isinstance(view, Text))
        return
    unbounded = Console(width=_UNBOUNDED, height=_HEIGHT)
    with unbounded.capture() as captured:
        if isinstance(view, Panel):
            unbounded.print(view.title or "")
            view = view.renderable
        unbounded.print(view)
    print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n")


def findings_view(findings: Sequence[Finding]) -> Text:
    """Return findings as lines for people: level, check and sentence, and below it the fix, if there is one."""
    width = max((len(finding.check) for finding in findings), default=0)
    view = Text()
    for finding in findings:
        view.append(f"{finding.level.upper():<6}", _COLOURS[finding.level])
        view.append(f"{finding.check:<{width}}  {printable_line(finding.found)}\n")
        if finding.fix is not None:
            view.append(f"{'':<{6 + width}}  Fix: {printable_line(finding.fix)}\n")
    view.rstrip()
    return view


def _print_plain(table: Table, console: Console) -> None:
    table.box, table.padding, table.title_justify = None, (0, 2, 0, 0), "left"
    console.width = console.measure(table).maximum
    with console.capture() as captured:
        console.print(table)
    print(*(line.rstrip() for line in captured.get().splitlines()), sep="\n")
