"""The outcomes that a wait ends with, as errors. Imports nothing of the database: what waits may be far from it."""

from broker.contract.messages import JsonObject
from broker.contract.states import CommandState, Outcome
from broker.errors import BrokerError

__all__ = [
    "SERVER",
    "CommandFailed",
    "WaitTimeout",
    "require_success",
]


# Instead of an incarnation and a digest: the server completed the command itself (broker.ledger.completion).
SERVER = "server"


class CommandFailed(BrokerError):
    """A command was completed with the outcome error."""

    code = "command_failed"


class WaitTimeout(BrokerError):
    """No result arrived within the wait time."""

    code = "wait_timeout"


def require_success(
    command_id: str, command_type: str, agent: str, state: CommandState, result: JsonObject | None, wait_s: float
) -> None:
    """Raise WaitTimeout or CommandFailed unless the command was completed with success; `wait_s` is for the text."""
    if result is None:
        raise WaitTimeout(
            f"No result after {wait_s:g} s: the command is {state}, and remains open. "
            f"Check it with `acm show {command_id}`."
        )
    if result.get("outcome") != Outcome.SUCCESS:
        raise CommandFailed(f"{command_type} on {agent} ended in an error ({result.get('code')}).")
