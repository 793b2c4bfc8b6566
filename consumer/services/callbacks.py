"""The embedding program as the managed service."""

from collections.abc import Callable
from pathlib import Path

from consumer.ports import ServiceState
from consumer.services.desired_state import DesiredState

__all__ = [
    "CallbackService",
]


class CallbackService:
    """The embedding program: the callbacks start and stop it and return its incarnation (None: not running).

    The file `stopped_mark`, in a directory that outlives the process, records that the program should stay stopped.
    """

    def __init__(
        self,
        start: Callable[[], None],
        stop: Callable[[], None],
        incarnation: Callable[[], str | None],
        stopped_mark: Path,
    ) -> None:
        self._start = start
        self._stop = stop
        self._incarnation = incarnation
        self._desired = DesiredState(stopped_mark)

    @property
    def stopped(self) -> bool:
        """Whether the last command, even in an earlier process, stopped the program: then do not start it."""
        return self._desired.stopped

    def state(self) -> ServiceState:
        """Return the state that the program reports."""
        incarnation = self._incarnation()
        return ServiceState("callbacks", incarnation is not None, incarnation)

    def start(self, deadline: float) -> ServiceState:
        """Start the program unless it runs."""
        self._desired.set_stopped(False)
        if not self.state().running:
            self._start()
        return self.state()

    def stop(self, deadline: float) -> ServiceState:
        """Stop the program, and record that it should stay stopped."""
        self._desired.set_stopped(True)
        if self.state().running:
            self._stop()
        return self.state()

    def restart(self, deadline: float) -> ServiceState:
        """Stop, then start."""
        self.stop(deadline)
        return self.start(deadline)
