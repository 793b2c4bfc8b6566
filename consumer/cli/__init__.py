"""The command line of the agent."""

__all__ = [
    "SERVICES",
]


SERVICES = ("run", "watch-upgrade")
"""The commands that run until a signal ends them."""
