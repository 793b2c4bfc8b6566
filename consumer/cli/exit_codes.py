"""The exit codes of acm-agent, named in one place."""

from enum import IntEnum

__all__ = [
    "ExitCode",
]


class ExitCode(IntEnum):
    """What the end of acm-agent means."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIGURATION = 3
    STATE_DIRECTORY = 4
