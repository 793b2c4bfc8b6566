"""Live output while acm waits: the state of a command, the progress of an operation, or that of a file."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as ProgressBar
from rich.table import Column

from broker.console.output import print_text
from broker.contract.messages import RunningProgress
from broker.fleet.models import OperationProgress, OperationView
from broker.text import printable_line

__all__ = [
    "AwaitedCommand",
    "progress_bar",
    "status_line",
    "tell_of_wait",
    "transfer_bar",
]


_SPINNER = "line"  # of characters that every terminal has
_BAR_COLUMNS = 12
_WIDE_COLUMNS = 60  # a narrower terminal shows the percentage alone


@dataclass(frozen=True)
class AwaitedCommand:
    """What is shown of a command that is waited for."""

    type: str
    agent: str
    state: str
    progress: RunningProgress | None = None

    @property
    def percent(self) -> int | None:
        """How much of its phase is done, if that is known."""
        return self.progress.percent if self.progress else None

    def __str__(self) -> str:
        progress = f" ({self.progress})" if self.progress else ""
        return printable_line(f"{self.state}{progress}: {self.type} on {self.agent}")


@contextlib.contextmanager
def status_line(*, quiet: bool) -> Iterator[Callable[[AwaitedCommand], None]]:
    """Yield a function that shows a command on stderr: in a live line on a terminal, elsewhere a line for each change.

    It shows nothing if `quiet`.
    """
    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif not console.is_terminal:
        yield _print_changes()
    else:
        with _live_line(console) as line:
            task = line.add_task("", total=None)
            yield lambda it: line.update(
                task, description=str(it), completed=it.percent or 0, total=None if it.percent is None else 100
            )


def _live_line(console: Console) -> ProgressBar:
    return ProgressBar(
        SpinnerColumn(_SPINNER),
        _cropped_description(),
        *_bar_if_wide(console),
        TimeElapsedColumn(),
        console=console,
        expand=True,
        transient=True,
    )


def _cropped_description() -> TextColumn:
    cropped = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return TextColumn("{task.description}", markup=False, table_column=cropped)


def _bar_if_wide(console: Console) -> list[BarColumn]:
    return [BarColumn(_BAR_COLUMNS)] if console.width >= _WIDE_COLUMNS else []


def _print_changes() -> Callable[[AwaitedCommand], None]:
    shown: set[tuple[str, str | None]] = set()

    def show(command: AwaitedCommand) -> None:
        phase = command.progress.phase if command.progress else None
        if (command.state, phase) not in shown:
            shown.add((command.state, phase))
            print_text(f"acm: {command}", to_stderr=True)

    return show


@contextlib.contextmanager
def progress_bar(operation: OperationView, *, quiet: bool) -> Iterator[Callable[[OperationProgress], None]]:
    """Yield a function that shows progress in a bar on stderr; it shows nothing if `quiet` or without a terminal."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with ProgressBar(*columns, TextColumn("{task.fields[counts]}"), console=console, disable=hidden) as bar:
        task = bar.add_task(operation.type, total=operation.size, counts="")
        yield lambda progress: bar.update(task, completed=progress.completed, counts=progress.summary())


@contextlib.contextmanager
def transfer_bar(name: str, size: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many of the `size` bytes of a file have been sent, in a bar on stderr.

    It shows nothing if `quiet` or without a terminal.
    """
    console = Console(stderr=True)
    columns = _cropped_description(), *_bar_if_wide(console), DownloadColumn(), TimeElapsedColumn()
    hidden = quiet or not console.is_terminal
    with ProgressBar(*columns, console=console, disable=hidden, expand=True, transient=True) as bar:
        task = bar.add_task(printable_line(name), total=size)
        yield lambda sent: bar.update(task, completed=sent)


def tell_of_wait(kind: str, name: str) -> None:
    """Say on stderr which command or operation is waited for, so that its id is known however the wait ends."""
    print_text(f"acm: Waiting for the {kind} {name}.", to_stderr=True)
