"""The exit code of each error."""

import pytest

from broker.app.config import ServerConfigurationError
from broker.cli.audit import AuditDiffers
from broker.cli.exit_codes import AcmExitCode, exit_code_of
from broker.contract.commands import InvalidParameters
from broker.contract.topics import InvalidName
from broker.errors import BrokerError, ExposedFileError, InvalidArgument, LedgerError
from broker.fleet.targets import UnknownAgent
from broker.ledger.outcomes import CommandFailed, WaitTimeout


class SpecialArgument(InvalidArgument):
    """An error without a code of its own."""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (InvalidArgument, AcmExitCode.USAGE),
        (InvalidName, AcmExitCode.USAGE),
        (InvalidParameters, AcmExitCode.USAGE),
        (SpecialArgument, AcmExitCode.USAGE),
        (ServerConfigurationError, AcmExitCode.CONFIGURATION),
        (ExposedFileError, AcmExitCode.CONFIGURATION),
        (CommandFailed, AcmExitCode.COMMAND_ERROR),
        (WaitTimeout, AcmExitCode.WAIT_TIMEOUT),
        (UnknownAgent, AcmExitCode.UNKNOWN_AGENT),
        (AuditDiffers, AcmExitCode.AUDIT_DIFFERS),
        (LedgerError, AcmExitCode.FAILURE),
    ],
)
def test_exit_code_depends_on_the_class_not_on_the_code(kind: type[BrokerError], expected: AcmExitCode) -> None:
    assert exit_code_of(kind("x")) is expected
    assert exit_code_of(kind("x", code="more_specific")) is expected
