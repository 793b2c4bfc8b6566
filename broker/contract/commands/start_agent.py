"""`start-agent`: its parameters and the data of its result."""

from dataclasses import dataclass

__all__ = ["StartAgent", "StartAgentData"]


@dataclass(frozen=True)
class StartAgent:
    """Start the managed program if it does not run; takes no parameters."""


@dataclass(frozen=True)
class StartAgentData:
    """What kind of service was started, and its incarnation."""

    service: str
    incarnation: str | None
