"""The exit codes of acm, named in one place."""

from enum import IntEnum

__all__ = [
    "ExitCode",
]


class ExitCode(IntEnum):
    """What the end of acm means. `COMMAND_ERROR`: the command was completed, with the outcome error.

    `AUDIT_DIFFERS`: an agent's journal and the ledger do not say the same.
    """

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIGURATION = 3
    COMMAND_ERROR = 4
    WAIT_TIMEOUT = 5
    UNKNOWN_AGENT = 6
    AUDIT_DIFFERS = 7
