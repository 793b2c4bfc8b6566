"""Live output while acm waits: the state of a command, or the progress of an operation."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from broker.ledger.commands import LedgerRow
from broker.ledger.operations import Operation, Progress
from broker.text import printable

__all__ = [
    "progress_bar",
    "status_line",
]


@contextlib.contextmanager
def status_line(*, quiet: bool) -> Iterator[Callable[[LedgerRow], None]]:
    """Yield a function that shows a command's state in a live line on stderr; it shows nothing if `quiet`."""
    if quiet:
        yield lambda _: None
        return
    with Console(stderr=True).status("") as line:
        yield lambda row: line.update(Text(printable(f"{row.command.type} on {row.agent}: {row.state}")))


@contextlib.contextmanager
def progress_bar(operation: Operation, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows progress in a bar on stderr; it shows nothing if `quiet` or without a terminal."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with ProgressBar(*columns, TextColumn("{task.fields[counts]}"), console=console, disable=hidden) as bar:
        task = bar.add_task(operation.command_type, total=operation.size, counts="")
        yield lambda progress: bar.update(task, completed=progress.completed, counts=progress.summary())
