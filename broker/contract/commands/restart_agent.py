"""`restart-agent`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Literal

from broker.contract.fields import DelayS

__all__ = [
    "RestartAgent",
    "RestartAgentData",
]


@dataclass(frozen=True)
class RestartAgent:
    """Replace the running incarnation of the managed program by a new one, after `delay_s` seconds."""

    delay_s: DelayS = 0.0


@dataclass(frozen=True)
class RestartAgentData:
    """What ran before and what runs now. `started_by` is there only where the agent's own process was replaced.

    `killed` and `stop_grace_s` say how a managed service's old incarnation ended: by TERM, or killed after so many
    seconds; they are absent where that is not known.
    """

    service: str
    previous_incarnation: str | None
    incarnation: str | None
    started_by: Literal["command", "outside"] | None = None
    killed: bool | None = None
    stop_grace_s: float | None = None
