"""Parameters of `start-agent`."""

from dataclasses import dataclass

__all__ = ["StartAgent"]


@dataclass(frozen=True)
class StartAgent:
    """Start the managed program if it does not run; takes no parameters."""
