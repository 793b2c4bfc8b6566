"""The embedding program as the managed service."""

from collections.abc import Callable

from consumer.ports import ServiceState
from consumer.services.desired_state import DesiredState

__all__ = [
    "CallbackService",
]


class CallbackService:
    """The embedding program: the callbacks start and stop it and return its incarnation (None: not running)."""

    def __init__(
        self,
        start: Callable[[], None],
        stop: Callable[[], None],
        incarnation: Callable[[], str | None],
        desired: DesiredState,
    ) -> None:
        self._start = start
        self._stop = stop
        self._incarnation = incarnation
        self._desired = desired

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
