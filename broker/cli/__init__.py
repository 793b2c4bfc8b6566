"""acm: one module per command group."""

__all__ = [
    "SERVICES",
]


SERVICES = ("up", "server", "enroll-server", "broker run")
"""The commands that run until a signal ends them."""
