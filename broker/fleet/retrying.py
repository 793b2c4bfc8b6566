"""Sending again what has ended: a new command with the same parameters, timeout and time to expire."""

from broker.command_types import parameters_of
from broker.contract.commands import is_secret
from broker.contract.messages import Command, Origin
from broker.contract.states import CommandState
from broker.errors import LedgerError
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest

__all__ = [
    "NotRetried",
    "request_again",
    "require_ended",
]


class NotRetried(LedgerError):
    """A command cannot be sent again: it has not ended, or the ledger does not have all of it any more."""

    code = "not_retried"


def require_ended(row: LedgerRow) -> None:
    """Raise NotRetried for a command that is still open."""
    if row.state is not CommandState.COMPLETED:
        raise NotRetried(
            f"The command {row.command.id} is {row.state}: wait for its end, or cancel it (`acm cancel`).",
            code="still_open",
        )


def request_again(command: Command, origin: Origin) -> CommandRequest:
    """Return the request that has led to a command, with this origin; raises NotRetried if its secrets are gone."""
    shape = parameters_of(command.type)
    secret = next((name for name in command.parameters if is_secret(command.type, name, shape)), None)
    if secret is not None:
        raise NotRetried(
            f"{secret} was secret, and was removed from the ledger when the command ended: send a new one.",
            code="secret_is_gone",
        )
    lifetime = None if command.expires_at is None else (command.expires_at - command.created_at).total_seconds()
    return CommandRequest(command.type, command.parameters, origin, lifetime, command.timeout_s)
