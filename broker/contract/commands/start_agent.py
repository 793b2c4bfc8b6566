"""`start-agent`: its parameters and the data of its result."""

from dataclasses import dataclass

from broker.contract.fields import DelayS

__all__ = [
    "StartAgent",
    "StartAgentData",
]


@dataclass(frozen=True)
class StartAgent:
    """Start the managed program if it is not running, after `delay_s` seconds."""

    delay_s: DelayS = 0.0


@dataclass(frozen=True)
class StartAgentData:
    """The kind of service that was started, and its incarnation."""

    service: str
    incarnation: str | None
