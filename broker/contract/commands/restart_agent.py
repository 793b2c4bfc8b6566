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
    """Replace the running incarnation of the managed program with a new one, after `delay_s` seconds."""

    delay_s: DelayS = 0.0


@dataclass(frozen=True)
class RestartAgentData:
    """The incarnations before and after. `started_by` is present only if the agent's own process was replaced.

    `killed`: the old incarnation of a managed service did not end on TERM within `stop_grace_s` seconds, and was
    killed. Both are absent if that is unknown.
    """

    service: str
    previous_incarnation: str | None
    incarnation: str | None
    started_by: Literal["command", "outside"] | None = None
    killed: bool | None = None
    stop_grace_s: float | None = None
