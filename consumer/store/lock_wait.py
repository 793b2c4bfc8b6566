"""The wait for a database that another process has locked: bounded, logged, and ended by a stop of the agent."""

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from broker.system.log_throttle import LogThrottle
from consumer.errors import StoreLocked
from consumer.store.damage import is_busy

__all__ = ["BUSY_TIMEOUT_S", "LockWait", "Stopping"]


_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
BUSY_TIMEOUT_S = 0.2  # how long SQLite waits itself, deaf to a stop
_PAUSE_S = 0.02
_WAIT_S = 3.0
_LOG_AFTER_S = 1.0
Stopping = Callable[[], bool]
"""Returns whether the agent is to end. Called from the thread that waits."""


class LockWait:
    """Waits up to 3 s for a locked database, less once `stopping` returns true."""

    def __init__(self, stopping: Stopping = lambda: False) -> None:
        self._stopping = stopping
        self._throttle = LogThrottle(time.monotonic)

    def __call__(self, attempt: Callable[[], _T]) -> _T:
        """Return the attempt's result; raises StoreLocked if the database stays locked, and what else it raises."""
        began = time.monotonic()
        while True:
            try:
                return attempt()
            except sqlite3.Error as error:
                waited = time.monotonic() - began
                if not is_busy(error):
                    raise
                if waited > _LOG_AFTER_S:
                    self._throttle.warn(_log, "store_locked", waited_s=round(waited, 1))
                if self._stopping() or waited > _WAIT_S:
                    raise StoreLocked(
                        "The command store is locked by another process: no command is accepted, begun or completed "
                        "until it is unlocked."
                    ) from error
                time.sleep(_PAUSE_S)
