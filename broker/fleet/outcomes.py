"""The outcomes that a wait ends with, of what an operator sees."""

from broker.fleet.models import CommandView, OperationProgress
from broker.ledger.outcomes import CommandFailed, WaitTimeout, require_success

__all__ = [
    "require_command_success",
    "require_operation_success",
]


def require_command_success(command: CommandView, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless the command was completed with success; `wait_s` is for the text."""
    require_success(command.id, command.type, command.agent, command.state, command.result, wait_s)


def require_operation_success(progress: OperationProgress, wait_s: float) -> None:
    """Raise WaitTimeout or CommandFailed unless every command of the operation was completed with success."""
    operation, counts = progress.operation, progress.summary()
    check = f"Check it with `acm operation show {operation.id}`."
    if not progress.done:
        raise WaitTimeout(f"Not all results arrived within {wait_s:g} s: {counts}. {check}")
    if progress.succeeded < operation.size:
        raise CommandFailed(f"{operation.type} did not succeed on every agent: {counts}. {check}")
