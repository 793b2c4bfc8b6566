"""Waiting until commands are completed, and their outcomes as errors."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from broker.contract.states import Outcome
from broker.errors import BrokerError
from broker.ledger.commands import LedgerRow
from broker.ledger.failures import DatabaseUnavailable
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation, Progress
from broker.ledger.tables import CommandState
from broker.system.retry import growing_wait

__all__ = [
    "Wait",
    "WaitTimeout",
    "require_operation_success",
    "require_success",
    "wait_for_command",
    "wait_for_operation",
]


_Read = TypeVar("_Read")
_POLL_INTERVAL_S = 0.05
_OPERATION_POLL_INTERVAL_S = 0.25
_OUTAGE_FIRST_S, _OUTAGE_LONGEST_S = 0.1, 2.0


class CommandFailed(BrokerError):
    """A command was completed with the outcome error."""

    code = "command_failed"


class WaitTimeout(BrokerError):
    """No result arrived within the wait time."""

    code = "wait_timeout"


class Wait:
    """At most `wait_s` seconds for results. What is read meanwhile is read again while the database is unavailable.

    `on_outage` is called with the reason when the database becomes unavailable.
    """

    def __init__(self, wait_s: float, on_outage: Callable[[DatabaseUnavailable], None] = lambda _: None) -> None:
        self.wait_s = wait_s
        self._end = monotonic() + wait_s
        self._on_outage = on_outage

    @property
    def left_s(self) -> float:
        """How many seconds are left; 0 once it is over."""
        return max(0.0, self._end - monotonic())

    def call(self, call: Callable[[], _Read]) -> _Read:
        """Return what `call` returns. Raises WaitTimeout if the database is still unavailable at the end."""
        attempt = 0
        while True:
            try:
                return call()
            except DatabaseUnavailable as error:
                if not self.left_s:
                    raise WaitTimeout(f"No result after {self.wait_s:g} s. {error}") from error
                if not attempt:
                    self._on_outage(error)
            self.pause(growing_wait(attempt, first_s=_OUTAGE_FIRST_S, longest_s=_OUTAGE_LONGEST_S))
            attempt += 1

    def pause(self, pause_s: float) -> None:
        """Pause for some seconds, but not beyond the end."""
        threading.Event().wait(min(pause_s, self.left_s))


def wait_for_command(
    ledger: Ledger, command_id: str, wait: Wait, show: Callable[[LedgerRow], None] = lambda _: None
) -> LedgerRow:
    """Return the command once it is completed, or as it is at the end of the wait; `show` it meanwhile."""
    while True:
        row = wait.call(lambda: ledger.get(command_id))
        if row.state is CommandState.COMPLETED or not wait.left_s:
            return row
        show(row)
        wait.pause(_POLL_INTERVAL_S)


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
    ledger: Ledger, operation: Operation, wait: Wait, show: Callable[[Progress], None] = lambda _: None
) -> Progress:
    """Return the progress once all commands are completed, or as it is at the end of the wait; `show` it meanwhile."""
    while True:
        progress = wait.call(lambda: ledger.operations.progress(operation.id))
        show(progress)
        if progress.done or not wait.left_s:
            return progress
        wait.pause(_OPERATION_POLL_INTERVAL_S)


def require_operation_success(operation: Operation, progress: Progress, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless every command of the operation was completed with success."""
    counts = progress.summary()
    check = f"Check it with `acm operation show {operation.id}`."
    if not progress.done:
        raise WaitTimeout(f"Not all results arrived within {wait_s:g} s: {counts}. {check}")
    if progress.succeeded < operation.size:
        raise CommandFailed(f"{operation.command_type} did not succeed on every agent: {counts}. {check}")
