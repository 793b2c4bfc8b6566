"""`stop-agent`: its parameters and the data of its result."""

from dataclasses import dataclass

__all__ = ["StopAgent", "StopAgentData"]


@dataclass(frozen=True)
class StopAgent:
    """Stop the managed program and keep it stopped; takes no parameters."""


@dataclass(frozen=True)
class StopAgentData:
    """What kind of service was stopped."""

    service: str
