"""The exit code of each error."""

import pytest

from broker.app.config import ServerConfigurationError
from broker.cli.audit import AuditDiffers
from broker.cli.exit_codes import ExitCode, exit_code_of
from broker.cli.targets import UnknownAgent
from broker.contract.commands import InvalidParameters
from broker.contract.topics import InvalidName
from broker.errors import BrokerError, ExposedFileError, InvalidArgument, LedgerError
from broker.ledger.waiting import CommandFailed, WaitTimeout


class SpecialArgument(InvalidArgument):
    """An error without a code of its own."""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (InvalidArgument, ExitCode.USAGE),
        (InvalidName, ExitCode.USAGE),
        (InvalidParameters, ExitCode.USAGE),
        (SpecialArgument, ExitCode.USAGE),
        (ServerConfigurationError, ExitCode.CONFIGURATION),
        (ExposedFileError, ExitCode.CONFIGURATION),
        (CommandFailed, ExitCode.COMMAND_ERROR),
        (WaitTimeout, ExitCode.WAIT_TIMEOUT),
        (UnknownAgent, ExitCode.UNKNOWN_AGENT),
        (AuditDiffers, ExitCode.AUDIT_DIFFERS),
        (LedgerError, ExitCode.FAILURE),
    ],
)
def test_exit_code_is_that_of_the_class_whatever_the_code_of_the_raise(
    kind: type[BrokerError], expected: ExitCode
) -> None:
    assert exit_code_of(kind("x")) is expected
    assert exit_code_of(kind("x", code="more_specific")) is expected
