"""Sending again what has ended: a new command with the same parameters, timeout and time to expire."""

from dataclasses import dataclass

from broker.command_types import parameters_of
from broker.contract.commands import is_secret
from broker.contract.messages import Command, Origin
from broker.contract.states import CommandState, Outcome
from broker.errors import LedgerError
from broker.fleet.targets import Target
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation

__all__ = [
    "Again",
    "NotRetried",
    "again",
    "failed_again",
]


class NotRetried(LedgerError):
    """A command cannot be sent again: it has not ended, or the ledger does not have all of it any more."""

    code = "not_retried"


@dataclass(frozen=True)
class Again:
    """What is sent again, and to which agents."""

    target: Target
    request: CommandRequest


def again(row: LedgerRow, origin: Origin) -> Again:
    """Return what sends a command again, with this origin. Raises NotRetried."""
    if row.state is not CommandState.COMPLETED:
        raise NotRetried(
            f"The command {row.command.id} is {row.state}: wait for its end, or cancel it (`acm cancel`).",
            code="still_open",
        )
    return Again(Target([row.agent], row.agent, single=True), _request_again(row.command, origin))


def failed_again(ledger: Ledger, operation: Operation, groups: frozenset[str] | None, origin: Origin) -> Again:
    """Return what sends those commands of an operation again that ended in an error; with `groups`, of their agents.

    Raises NotRetried.
    """
    failed = ledger.commands(operation_id=operation.id, outcome=Outcome.ERROR, limit=None, groups=groups)
    if not failed:
        raise NotRetried(
            f"No command of the operation {operation.id} has ended in an error: there is nothing to retry.",
            code="nothing_failed",
        )
    target = Target(sorted(row.agent for row in failed), operation.target)
    return Again(target, _request_again(failed[0].command, origin))


def _request_again(command: Command, origin: Origin) -> CommandRequest:
    """Return the request that has led to a command; raises NotRetried if its secrets are gone."""
    shape = parameters_of(command.type)
    secret = next((name for name in command.parameters if is_secret(command.type, name, shape)), None)
    if secret is not None:
        raise NotRetried(
            f"{secret} was secret, and was removed from the ledger when the command ended: send a new one.",
            code="secret_is_gone",
        )
    lifetime = None if command.expires_at is None else (command.expires_at - command.created_at).total_seconds()
    return CommandRequest(command.type, command.parameters, origin, lifetime, command.timeout_s)
