"""`restart-agent`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["RestartAgent", "RestartAgentData"]


@dataclass(frozen=True)
class RestartAgent:
    """Replace the running incarnation of the managed program by a new one; takes no parameters."""


@dataclass(frozen=True)
class RestartAgentData:
    """What ran before and what runs now. `started_by` is there only where the agent's own process was replaced."""

    service: str
    previous_incarnation: str | None
    incarnation: str | None
    started_by: Literal["command", "outside"] | None = None
