"""Records an agent's feedback in the ledger: states, results and sequence numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from broker.command_types import parameters_of
from broker.contract.commands import is_secret
from broker.contract.messages import Ack, Feedback, JsonObject, RefusedMessage
from broker.contract.states import ErrorCode, FeedbackKind
from broker.ledger.agents import get_or_create, update_agent
from broker.ledger.completion import completion, mask_completed
from broker.ledger.group_configuration import answer_fetch_config
from broker.ledger.sequence import begin_epoch_after_conflict, is_conflict, resend_from_gap
from broker.ledger.tables import COMMANDS, IS_OPEN, PRUNED_COMMANDS, SERVER, CommandState
from broker.ledger.unmatched_results import store_unmatched

__all__ = [
    "Recorded",
    "record_feedback",
]


_IDS_PER_QUERY = 500
# A late or repeated acceptance must not set a command back to an earlier state.
_EARLIER_STATES = {
    CommandState.ACCEPTED: [CommandState.QUEUED, CommandState.SENT],
    CommandState.RUNNING: [CommandState.QUEUED, CommandState.SENT, CommandState.ACCEPTED],
}
_STATE_BY_KIND = {FeedbackKind.ACCEPTED: CommandState.ACCEPTED, FeedbackKind.PROGRESS: CommandState.RUNNING}


@dataclass(frozen=True)
class Recorded:
    """The acks to publish after the commit. `refused` are results that only refuse a message."""

    acks: list[Ack]
    refused: list[Feedback]


def record_feedback(connection: sa.Connection, agent: str, feedbacks: Sequence[Feedback], now: datetime) -> Recorded:
    """Within a transaction, record feedback of one agent that arrived together.

    A command stays open if only its message or its number was refused: the agent may accept it when it is sent again
    with other signatures, or another number. However many gaps and conflicts the agent reports, its commands are made
    due once, and begin at most one new epoch.
    """
    row = get_or_create(connection, agent, now)
    results = [it for it in feedbacks if it.kind is FeedbackKind.RESULT and it.command_id and it.digest]
    digests = _digests(connection, agent, results)
    refused = [it for it in results if _refuses_message(it) and digests.get(it.command_id or "", "") is None]
    refused_keys = {_key(it) for it in refused}
    # Before the states: what the same messages accept or complete is not missing any more.
    resend_from_gap(connection, row, (it for it in feedbacks if it.kind is FeedbackKind.GAP), now)
    _record_states(connection, agent, [it for it in feedbacks if row.incarnation in (None, it.incarnation)])
    unmatched: list[Feedback] = []
    for result in results:
        if _key(result) not in refused_keys:
            unmatched += _record_result(connection, agent, result, digests, now)
    store_unmatched(connection, agent, unmatched, now.timestamp())
    if any(is_conflict(row, it) and digests.get(it.command_id or "") is None for it in refused):
        begin_epoch_after_conflict(connection, row, now)
    return Recorded([Ack(*_key(it)) for it in results if _key(it) not in refused_keys], refused)


def _key(result: Feedback) -> tuple[str, str]:
    return result.command_id or "", result.digest or ""


def _digests(connection: sa.Connection, agent: str, results: Sequence[Feedback]) -> dict[str, str | None]:
    """Return the digests of these commands' results by id, None for an open command; without commands of others."""
    digests: dict[str, str | None] = {}
    ids = [result.command_id for result in results]
    for first in range(0, len(ids), _IDS_PER_QUERY):
        for table in (PRUNED_COMMANDS, COMMANDS):
            named = table.c.id.in_(ids[first : first + _IDS_PER_QUERY])
            query = sa.select(table.c.id, table.c.digest).where(table.c.agent == agent, named)
            digests |= {row[0]: row[1] for row in connection.execute(query)}
    return digests


def _refuses_message(result: Feedback) -> bool:
    """Whether a result refuses only the command's message or number, not the command."""
    data = result.data or {}
    message = result.code is ErrorCode.REJECTED and data.get("refused") == RefusedMessage().refused
    return message or result.code is ErrorCode.SUPERSEDED


def _record_states(connection: sa.Connection, agent: str, feedbacks: Sequence[Feedback]) -> None:
    """Advance the commands that the agent has accepted or begun."""
    advanced = 0
    for kind, state in _STATE_BY_KIND.items():
        ids = list(dict.fromkeys(it.command_id for it in feedbacks if it.kind is kind and it.command_id))
        for first in range(0, len(ids), _IDS_PER_QUERY):
            of_agent = (COMMANDS.c.agent == agent, COMMANDS.c.id.in_(ids[first : first + _IDS_PER_QUERY]))
            update = COMMANDS.update().where(*of_agent, COMMANDS.c.state.in_(_EARLIER_STATES[state]))
            advanced += connection.execute(update.values(state=state, to_send=False)).rowcount
    if advanced:
        update_agent(connection, agent, attempts=0)


def _record_result(
    connection: sa.Connection, agent: str, result: Feedback, digests: dict[str, str | None], now: datetime
) -> list[Feedback]:
    """Complete the command; return the result if it matches no open command and is not the one stored already.

    It replaces what the server itself had completed the command with: only the agent knows what happened.
    """
    name, digest = result.command_id, result.digest
    if name is None or digest is None or digests.get(name) == digest:
        return []
    replaces = digests.get(name) == SERVER and not _refuses_message(result)
    if name not in digests or not (digests[name] is None or replaces):
        return [result]
    is_waiting, verdict = (COMMANDS.c.digest == SERVER, COMMANDS.c.result) if replaces else (IS_OPEN, sa.null())
    command = COMMANDS.update().where(COMMANDS.c.id == name, is_waiting)
    if connection.execute(command.values(verdict=verdict, **completion(result, digest, now))).rowcount == 0:
        return [result]
    digests[name] = digest
    if _may_name_a_secret(result.command):
        mask_completed(connection, name)
    answer_fetch_config(connection, agent, result, now)
    return []


def _may_name_a_secret(echo: JsonObject | None) -> bool:
    """Whether a command, as its result echoes it, may contain a secret; without an echo it may."""
    if echo is None:
        return True
    command_type, parameters = echo.get("type"), echo.get("parameters")
    if not isinstance(command_type, str) or not isinstance(parameters, dict):
        return True
    shape = parameters_of(command_type)
    return any(is_secret(command_type, name, shape) for name in parameters)
