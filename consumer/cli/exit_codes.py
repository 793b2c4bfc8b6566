"""The exit codes of acm-agent, named in one place."""

from enum import IntEnum

__all__ = [
    "AgentExitCode",
]


class AgentExitCode(IntEnum):
    """Exit code of acm-agent."""

    OK = 0
    """Success."""
    FAILURE = 1
    """Any other failure; the message is on stderr."""
    USAGE = 2
    """Wrong usage."""
    CONFIGURATION = 3
    """Wrong configuration, or files that other users can change or read."""
    STATE_DIRECTORY = 4
    """The state directory cannot be used."""
    OUTPUT_FAILED = 8
    """The output cannot be written (full disk, closed pipe); what the command does may be done."""
    EXHAUSTED = 9
    """The machine has no memory, threads, processes, open files or disk for it now, or its disk fails; retry."""
    CHECKS_FAILED = 10
    """The doctor has found at least one FAIL."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C (INT)."""
    TERMINATED = 143
    """Ended by TERM; `acm-agent run` ends with 0 instead."""
