"""The base class of all errors of both packages, and the root of the errors of `broker`."""

__all__ = ["BrokerError", "CodedError", "ExposedFileError", "InvalidArgument", "LedgerError"]


class CodedError(Exception):
    """An error with one sentence for the user (its text) and a code for programs.

    `code` is a stable name in snake_case. A class gives a default; a raise gives a more specific one where a caller
    or a test must tell two causes apart. docs/errors.md lists all codes.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BrokerError(CodedError):
    """Root of the errors of `broker`."""

    code = "broker_error"


class InvalidArgument(BrokerError):
    """An argument of the command line is invalid."""

    code = "invalid_argument"


class ExposedFileError(BrokerError):
    """Another user of this machine could change a file that is relied on, or read a secret in it."""

    code = "exposed_file"


class LedgerError(BrokerError):
    """The ledger cannot be used, or cannot do what was requested."""

    code = "ledger_error"
