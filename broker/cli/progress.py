"""Live output while acm waits: the state of a command, or the progress of an operation."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from broker.cli.output import print_text
from broker.cli.session import Session
from broker.ledger.commands import LedgerRow
from broker.ledger.operations import Operation, Progress
from broker.ledger.waiting import Wait
from broker.text import printable

__all__ = [
    "progress_bar",
    "status_line",
    "tell_of_wait",
    "waiting_for",
]


_LAST_ANSWER_S = 3.0  # for what was asked just before the end of a wait


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


@contextlib.contextmanager
def waiting_for(session: Session, wait_s: float, kind: str | None = None, name: str = "") -> Iterator[Wait]:
    """Yield a wait; say on stderr what for, so that its id is known however the wait ends, and when the ledger is away.

    PostgreSQL that does not answer ends what is asked of it soon after the wait is over.
    """
    wait = Wait(wait_s, lambda error: print_text(f"acm: {error} Waiting for it.", to_stderr=True))
    if kind is not None:
        tell_of_wait(kind, name)
    with session.database.answering_within(wait_s + _LAST_ANSWER_S):
        yield wait


def tell_of_wait(kind: str, name: str) -> None:
    """Say on stderr which command or operation is waited for."""
    print_text(f"acm: Waiting for the {kind} {name}.", to_stderr=True)
