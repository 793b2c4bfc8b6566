"""The facts of a command that are in what an operator sees of it."""

from datetime import datetime

import msgspec

from broker.contract.messages import JsonObject, RunningProgress
from broker.contract.states import CommandState
from broker.fleet.facts import CommandFacts
from broker.fleet.models import CommandView
from broker.ledger.outcomes import SERVER

__all__ = [
    "facts_of",
    "progress_of",
]


def facts_of(command: CommandView) -> CommandFacts:
    """Return these facts; whether the command is due to be sent is not among them."""
    result = command.result or {}
    return CommandFacts(
        id=command.id,
        agent=command.agent,
        type=command.type,
        state=str(command.state),
        created_at=command.created_at,
        sent_at=command.sent_at,
        stored_at=command.stored_at,
        running_at=command.running_at,
        completed_at=command.completed_at,
        began_at=_time_in(result, "started_at"),
        ended_at=_time_in(result, "finished_at"),
        outcome=result.get("outcome"),
        code=result.get("code"),
        expires_at=command.expires_at,
        timeout_s=command.command.get("timeout_s"),
        by_server=result.get("digest") == SERVER,
        store_generation=result.get("store_generation"),
    )


def progress_of(command: CommandView, status: JsonObject | None) -> RunningProgress | None:
    """Return how far a running command is by the status of its agent; None if that has nothing of this command."""
    if command.state is not CommandState.RUNNING or not status or status.get("running_command") != command.id:
        return None
    return msgspec.convert(status.get("running_progress"), RunningProgress | None)


def _time_in(result: JsonObject, member: str) -> datetime | None:
    """Return a time in a result as it was stored; None if it is missing or unreadable."""
    try:
        return msgspec.convert(result.get(member), datetime | None)
    except msgspec.ValidationError:
        return None
