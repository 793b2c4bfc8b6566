"""The exit codes of acm, and the errors that lead to them. docs/errors.md has the table for users."""

from enum import IntEnum

from broker.errors import CodedError

__all__ = [
    "AcmExitCode",
    "exit_code_of",
]


class AcmExitCode(IntEnum):
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
    """Not every result arrived within the `--wait` time, or the ledger's database or the API was away at its end."""
    UNKNOWN_AGENT = 6
    """Unknown agent (`--allow-unknown` sends anyway), or no agent matches."""
    AUDIT_DIFFERS = 7
    """An agent's audit journal and the ledger differ."""
    OUTPUT_FAILED = 8
    """The output cannot be written (full disk, closed pipe); what the command does may be done."""
    EXHAUSTED = 9
    """The machine has no memory, threads, processes, open files or disk for it now, or its disk fails; retry."""
    CHECKS_FAILED = 10
    """The doctor has found at least one FAIL."""
    API_UNREACHABLE = 11
    """The API that the command works over does not answer, or its certificate is not trusted."""
    ACCESS_DENIED = 12
    """The API does not accept the access token, or its role does not allow this."""
    INTERRUPTED = 130
    """Interrupted by Ctrl-C (INT); what was sent is still processed."""
    TERMINATED = 143
    """Ended by TERM, as after an interruption; `acm up`, `server`, `enroll-server`, `broker run` end with 0 instead."""


# By the codes of the classes: importing these would load the libraries of commands that were not called.
_EXIT_CODES = {
    "invalid_argument": AcmExitCode.USAGE,
    "invalid_name": AcmExitCode.USAGE,
    "invalid_parameters": AcmExitCode.USAGE,
    "configuration_error": AcmExitCode.CONFIGURATION,
    "api_address_error": AcmExitCode.CONFIGURATION,
    "context_error": AcmExitCode.CONFIGURATION,
    "exposed_file": AcmExitCode.CONFIGURATION,
    "bad_ledger_url": AcmExitCode.CONFIGURATION,
    "ledger_not_found": AcmExitCode.CONFIGURATION,
    "command_failed": AcmExitCode.COMMAND_ERROR,
    "wait_timeout": AcmExitCode.WAIT_TIMEOUT,
    "unknown_agent": AcmExitCode.UNKNOWN_AGENT,
    "audit_differs": AcmExitCode.AUDIT_DIFFERS,
    "checks_failed": AcmExitCode.CHECKS_FAILED,
    "api_unreachable": AcmExitCode.API_UNREACHABLE,
    "invalid_credential": AcmExitCode.ACCESS_DENIED,
    "forbidden": AcmExitCode.ACCESS_DENIED,
}


def exit_code_of(error: CodedError) -> AcmExitCode:
    """Return the exit code of an error's class, or of its nearest base class that has one; FAILURE if none has.

    The class of an error on the other side of an API is named by its `kind`.
    """
    codes = (getattr(error, "kind", None), *(vars(cls).get("code") for cls in type(error).__mro__))
    return next((_EXIT_CODES[code] for code in codes if code in _EXIT_CODES), AcmExitCode.FAILURE)
