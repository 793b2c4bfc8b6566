"""The root of every error that this package raises, and the error of its database."""

__all__ = [
    "BrokerError",
    "InvalidArgument",
    "LedgerError",
]


class BrokerError(Exception):
    """Root of the errors of `broker`. Its text is one sentence meant for the user."""


class InvalidArgument(BrokerError):
    """An argument of the command line cannot be understood."""


class LedgerError(BrokerError):
    """The ledger cannot be used or cannot do what was asked."""
