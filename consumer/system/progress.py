"""How far a running handler is: its thread reports it, and the agent's loop reads it for the status."""

from broker.contract.messages import RunningProgress
from broker.text import printable_line

__all__ = ["HandlerProgress"]


_LONGEST_PHASE = 64  # characters, as the contract allows
_NO_PHASE = "running"


class HandlerProgress:
    """The phase that a handler is in, and how much of it is done. Only its own thread reports; any may read."""

    def __init__(self) -> None:
        self._current: RunningProgress | None = None

    @property
    def current(self) -> RunningProgress | None:
        """The last report; None before the first."""
        return self._current

    def report(self, phase: str, done: int | None = None, total: int = 0) -> None:
        """Note the phase, a word such as `download`; of it, `done` of `total` units are done, if that is known."""
        percent = None if done is None or total <= 0 else max(0, min(100, 100 * done // total))
        self._current = RunningProgress(printable_line(phase, _LONGEST_PHASE) or _NO_PHASE, percent)

    def clear(self) -> None:
        """Forget what was reported: another command begins."""
        self._current = None
