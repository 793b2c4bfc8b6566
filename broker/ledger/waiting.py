"""Waiting until commands are completed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from broker.ledger.changes import Changes
from broker.ledger.commands import LedgerRow
from broker.ledger.database import Database
from broker.ledger.failures import DatabaseUnavailable
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation, Progress
from broker.ledger.outcomes import WaitTimeout
from broker.ledger.tables import CommandState
from broker.system.retry import growing_wait

__all__ = [
    "Wait",
    "wait_for_command",
    "wait_for_operation",
    "waiting",
]


_Read = TypeVar("_Read")
_LEAST_PAUSE_S = 0.005  # between two looks at a command, also if much else changes in the ledger
_OPERATION_LEAST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_OUTAGE_FIRST_S, _OUTAGE_LONGEST_S = 0.1, 2.0
_LAST_ANSWER_S = 3.0  # for what was asked just before the end of a wait


class Wait:
    """At most `wait_s` seconds for results. What is read meanwhile is read again while the database is unavailable.

    `on_outage` is called with the reason when the database becomes unavailable. It ends early, within a second, once
    `is_over` returns true.
    """

    def __init__(
        self,
        wait_s: float,
        on_outage: Callable[[DatabaseUnavailable], None] = lambda _: None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.wait_s = wait_s
        self._is_over = is_over
        self._end = monotonic() + wait_s
        self._on_outage = on_outage

    @property
    def left_s(self) -> float:
        """How many seconds are left; 0 once it is over."""
        return 0.0 if self._is_over() else max(0.0, self._end - monotonic())

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

    def until_changed(self, changes: Changes, least_s: float) -> None:
        """Pause for some seconds, and then until the ledger has changed; for a second at most."""
        self.pause(least_s)
        changes.wait(min(_LONGEST_PAUSE_S, self.left_s))


@contextmanager
def waiting(database: Database, wait_s: float, tell: Callable[[str], None]) -> Iterator[Wait]:
    """Yield a wait that tells when the database is away.

    PostgreSQL that does not answer ends what is asked of it soon after the wait is over.
    """
    wait = Wait(wait_s, lambda error: tell(f"{error} Waiting for it."))
    with database.answering_within(wait_s + _LAST_ANSWER_S):
        yield wait


def wait_for_command(
    ledger: Ledger, command_id: str, wait: Wait, show: Callable[[LedgerRow], None] = lambda _: None
) -> LedgerRow:
    """Return the command once it is completed, or as it is at the end of the wait; `show` it meanwhile."""
    with wait.call(ledger.database.changes) as changes:
        while True:
            row = wait.call(lambda: ledger.get(command_id))
            if row.state is CommandState.COMPLETED or not wait.left_s:
                return row
            show(row)
            wait.until_changed(changes, _LEAST_PAUSE_S)


def wait_for_operation(
    ledger: Ledger, operation: Operation, wait: Wait, show: Callable[[Progress], None] = lambda _: None
) -> Progress:
    """Return the progress once all commands are completed, or as it is at the end of the wait; `show` it meanwhile."""
    with wait.call(ledger.database.changes) as changes:
        while True:
            progress = wait.call(lambda: ledger.operations.progress(operation.id))
            show(progress)
            if progress.done or not wait.left_s:
                return progress
            wait.until_changed(changes, _OPERATION_LEAST_PAUSE_S)
