"""The exit codes of acm, named in one place."""

from enum import IntEnum

__all__ = [
    "ExitCode",
]


class ExitCode(IntEnum):
    """Exit code of acm."""

    OK = 0
    """Success."""
    FAILURE = 1
    """Any other failure; the message is on stderr."""
    USAGE = 2
    """Wrong usage."""
    CONFIGURATION = 3
    """Wrong configuration."""
    COMMAND_ERROR = 4
    """The command, or one of several, was completed with the outcome error."""
    WAIT_TIMEOUT = 5
    """Not every result arrived within the time of `--wait`."""
    UNKNOWN_AGENT = 6
    """Unknown agent (`--allow-unknown` sends anyway), or no agent matches."""
    AUDIT_DIFFERS = 7
    """An agent's audit journal and the ledger differ."""
