"""Waiting for results, with the state shown to people meanwhile, and what the outcome means for acm's exit code."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from broker.contract.states import Outcome
from broker.errors import BrokerError
from broker.ledger.commands import LedgerRow
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation, Progress
from broker.ledger.tables import CommandState
from broker.text import printable

__all__ = [
    "CommandFailed",
    "WaitTimeout",
    "judge",
    "judge_operation",
    "wait_for_command",
    "wait_for_operation",
]


_POLL_S = 0.05
_OPERATION_POLL_S = 0.25


class CommandFailed(BrokerError):
    """A command that was waited for was completed with the outcome error."""

    code = "command_failed"


class WaitTimeout(BrokerError):
    """The result did not come in the time that the user gave."""

    code = "wait_timeout"


def wait_for_command(ledger: Ledger, row: LedgerRow, wait_s: float, *, quiet: bool) -> LedgerRow:
    """Follow the command until it is completed or the time is over, with a live line of its state for people."""
    end = monotonic() + wait_s
    pause = threading.Event()
    with _live_line(quiet) as tell:
        while row.state is not CommandState.COMPLETED and monotonic() < end:
            tell(f"{row.command.type} on {row.agent}: {row.state}")
            pause.wait(_POLL_S)
            row = ledger.get(row.command.id)
    return row


def judge(row: LedgerRow, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless the command was completed with success."""
    if row.result is None:
        raise WaitTimeout(
            f"No result after {wait_s:g} s: the command is {row.state}. It stays so until it is completed; "
            f"look with `acm show {row.command.id}`."
        )
    if row.result.get("outcome") != Outcome.SUCCESS:
        raise CommandFailed(f"{row.command.type} on {row.agent} ended in an error ({row.result.get('code')}).")


def wait_for_operation(ledger: Ledger, operation: Operation, wait_s: float, *, quiet: bool) -> Progress:
    """Follow an operation until all its commands are completed or the time is over, with a progress bar for people."""
    end = monotonic() + wait_s
    pause = threading.Event()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    with ProgressBar(*columns, TextColumn("{task.fields[counts]}"), console=console, disable=hidden) as bar:
        task = bar.add_task(operation.command_type, total=operation.size, counts="")
        while True:
            progress = ledger.operations.progress(operation.id)
            counts = ", ".join(f"{count} {state}" for state, count in progress.counts().items())
            bar.update(task, completed=progress.completed, counts=counts)
            if progress.done or monotonic() >= end:
                return progress
            pause.wait(_OPERATION_POLL_S)


def judge_operation(operation: Operation, progress: Progress, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless every command of the operation was completed with success."""
    counts = ", ".join(f"{count} {state}" for state, count in progress.counts().items())
    look = f"look with `acm operation show {operation.id}`."
    if not progress.done:
        raise WaitTimeout(f"Not all results came within {wait_s:g} s: {counts}; {look}")
    if progress.succeeded < operation.size:
        raise CommandFailed(f"{operation.command_type} did not succeed everywhere: {counts}; {look}")


@contextlib.contextmanager
def _live_line(quiet: bool) -> Iterator[Callable[[str], None]]:
    if quiet:
        yield lambda line: None
        return
    with Console(stderr=True).status("") as line:
        yield lambda words: line.update(Text(printable(words)))
