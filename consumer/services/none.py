"""An agent that manages nothing but its own process."""

from consumer.errors import ServiceError
from consumer.ports import ServiceState

__all__ = [
    "NoService",
]


class NoService:
    """Nothing beside the agent's own process: start and stop have no object, restart replaces the process itself."""

    def state(self) -> ServiceState:
        """Return a state of kind `none`."""
        return ServiceState("none", running=False)

    def start(self, deadline: float) -> ServiceState:
        """Raise ServiceError: there is nothing to start."""
        raise ServiceError("This agent manages no service; configure [service] to use start-agent and stop-agent.")

    stop = start
    restart = start
