"""Parameters of `restart-agent`."""

from dataclasses import dataclass

__all__ = ["RestartAgent"]


@dataclass(frozen=True)
class RestartAgent:
    """Replace the running incarnation of the managed program by a new one; takes no parameters."""
