"""The exit codes of acm, named in one place."""

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """What the end of acm means. `COMMAND_ERROR`: the command was completed, with the outcome error."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIGURATION = 3
    COMMAND_ERROR = 4
    WAIT_TIMEOUT = 5
    UNKNOWN_AGENT = 6
