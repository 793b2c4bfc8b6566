"""`stop-agent`: its parameters and the data of its result."""

from dataclasses import dataclass

from broker.contract.fields import DelayS

__all__ = [
    "StopAgent",
    "StopAgentData",
]


@dataclass(frozen=True)
class StopAgent:
    """Stop the managed program and keep it stopped, after `delay_s` seconds."""

    delay_s: DelayS = 0.0


@dataclass(frozen=True)
class StopAgentData:
    """The kind of service that was stopped. `killed`: it did not end on TERM within `stop_grace_s` seconds.

    Both are absent if nothing was running, or if that is unknown.
    """

    service: str
    killed: bool | None = None
    stop_grace_s: float | None = None
