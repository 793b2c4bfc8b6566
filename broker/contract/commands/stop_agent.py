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
    """What kind of service was stopped, and how: by TERM, or killed after `stop_grace_s` seconds.

    The latter two are absent where nothing ran, or it is not known.
    """

    service: str
    killed: bool | None = None
    stop_grace_s: float | None = None
