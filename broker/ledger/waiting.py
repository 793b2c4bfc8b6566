"""Waiting until commands are completed, and their outcomes as errors."""

import threading
from collections.abc import Callable
from time import monotonic

from broker.contract.states import Outcome
from broker.errors import BrokerError
from broker.ledger.commands import LedgerRow
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation, Progress
from broker.ledger.tables import CommandState

__all__ = [
    "WaitTimeout",
    "require_operation_success",
    "require_success",
    "wait_for_command",
    "wait_for_operation",
]


_POLL_INTERVAL_S = 0.05
_OPERATION_POLL_INTERVAL_S = 0.25


class CommandFailed(BrokerError):
    """A command was completed with the outcome error."""

    code = "command_failed"


class WaitTimeout(BrokerError):
    """No result arrived within the wait time."""

    code = "wait_timeout"


def wait_for_command(
    ledger: Ledger, row: LedgerRow, wait_s: float, show: Callable[[LedgerRow], None] = lambda _: None
) -> LedgerRow:
    """Return the command once it is completed, or as it is after `wait_s` seconds; `show` it meanwhile."""
    end = monotonic() + wait_s
    pause = threading.Event()
    while row.state is not CommandState.COMPLETED and monotonic() < end:
        show(row)
        pause.wait(_POLL_INTERVAL_S)
        row = ledger.get(row.command.id)
    return row


def require_success(row: LedgerRow, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless the command was completed with success; `wait_s` is for the text."""
    if row.result is None:
        raise WaitTimeout(
            f"No result after {wait_s:g} s: the command is {row.state}, and remains open. "
            f"Check it with `acm show {row.command.id}`."
        )
    if row.result.get("outcome") != Outcome.SUCCESS:
        raise CommandFailed(f"{row.command.type} on {row.agent} ended in an error ({row.result.get('code')}).")


def wait_for_operation(
    ledger: Ledger, operation: Operation, wait_s: float, show: Callable[[Progress], None] = lambda _: None
) -> Progress:
    """Return the progress once all commands are completed, or as it is after `wait_s` seconds; `show` it meanwhile."""
    end = monotonic() + wait_s
    pause = threading.Event()
    while True:
        progress = ledger.operations.progress(operation.id)
        show(progress)
        if progress.done or monotonic() >= end:
            return progress
        pause.wait(_OPERATION_POLL_INTERVAL_S)


def require_operation_success(operation: Operation, progress: Progress, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless every command of the operation was completed with success."""
    counts = progress.summary()
    check = f"Check it with `acm operation show {operation.id}`."
    if not progress.done:
        raise WaitTimeout(f"Not all results arrived within {wait_s:g} s: {counts}. {check}")
    if progress.succeeded < operation.size:
        raise CommandFailed(f"{operation.command_type} did not succeed on every agent: {counts}. {check}")
