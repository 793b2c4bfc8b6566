"""Parameters of `stop-agent`."""

from dataclasses import dataclass

__all__ = ["StopAgent"]


@dataclass(frozen=True)
class StopAgent:
    """Stop the managed program and keep it stopped; takes no parameters."""
