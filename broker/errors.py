"""The root of every error that this package raises."""

__all__ = ["BrokerError"]


class BrokerError(Exception):
    """Root of the errors of `broker`. Its text is one sentence meant for the user."""
