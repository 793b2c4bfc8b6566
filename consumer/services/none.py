"""An agent that manages no service."""

from consumer.errors import ServiceError
from consumer.ports import ServiceState

__all__ = [
    "NoService",
]


class NoService:
    """No service: there is nothing to start or stop, and restart-agent re-executes the agent."""

    def state(self) -> ServiceState:
        """Return a state of kind `none`."""
        return ServiceState("none", running=False)

    def start(self, deadline: float) -> ServiceState:
        """Raise ServiceError: there is nothing to start."""
        raise ServiceError(
            "This agent manages no service; configure [service] to use start-agent and stop-agent.", code="no_service"
        )

    stop = start
    restart = start
