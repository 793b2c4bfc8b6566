"""Observation of what the agent does, step by step: for logs, and for programs that embed it."""

from typing import Protocol

import structlog

__all__ = [
    "LogObserver",
    "Observer",
]


_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Notified of each step of a command that takes several, after the step is durable."""

    def reached(self, step: str) -> None:
        """Note a step, named `{command type}.{step}`; called from the thread that runs the command."""


class LogObserver:
    """Writes each step to the log at level debug."""

    def reached(self, step: str) -> None:
        """Log the step."""
        _log.debug("step_reached", step=step)
