"""A new process for a handler that was cut off and still runs, once its program was seen to start."""

from collections.abc import Callable
from dataclasses import replace

import structlog

from consumer.engine.executor import Spawn
from consumer.handler import Context, Replacement, ReplacementTest

__all__ = [
    "ProcessRenewal",
]


_log = structlog.get_logger(__name__)
_TEST_TIMEOUT_S = 60.0
_RETRY_S = 600.0


# design.md: "A hung handler is cut off"
class ProcessRenewal:
    """Decides whether this process is replaced by the same program.

    `test` takes seconds, so `spawn` runs it on another thread, which calls `wake` when the program does start; without
    a test, the process is replaced at once. A program that does not start is tested again after ten minutes.
    """

    def __init__(
        self, context: Context, spawn: Spawn, wake: Callable[[], None], test: ReplacementTest | None = None
    ) -> None:
        self._context = context
        self._spawn = spawn
        self._wake = wake
        self._test = test
        self._test_at = 0.0
        self._starts = False

    def replacement_for(self, command_id: str | None) -> Replacement | None:
        """Return the replacement for the handler of this command, which was cut off; None if there is none yet."""
        if command_id is None:
            return None
        if self._test is not None and not self._was_seen_to_start(self._test):
            return None
        _log.warning("process_renewed", command_id=command_id, reason="its handler was cut off and still runs")
        return Replacement(command_id)

    def _was_seen_to_start(self, test: ReplacementTest) -> bool:
        now = self._context.clock.monotonic()
        if self._starts or now < self._test_at:
            return self._starts
        self._test_at = now + _RETRY_S
        context = replace(self._context, deadline=now + _TEST_TIMEOUT_S)

        def run() -> None:
            refused = test(context)
            self._starts = refused is None
            if refused is not None:
                _log.error("process_not_renewed", reason=refused.message)
            self._wake()

        try:
            self._spawn(run)
        except RuntimeError as error:  # no thread can be had now
            _log.warning("process_not_renewed", reason=str(error))
        return False
