"""Adds commands to agents' queues: a draft is validated, then numbered and written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from broker.contract.codec import decode_commands, encode
from broker.contract.limits import MAX_SIGNED_FRAME_BYTES
from broker.contract.messages import Command, JsonObject, Origin, SequenceNumber
from broker.contract.strict_json import DecodeError
from broker.ledger.agents import get_or_create_all
from broker.ledger.damage import body_check
from broker.ledger.ids import new_id
from broker.ledger.sequence import next_sequence
from broker.ledger.tables import AGENTS, COMMANDS, Cancel, CommandState

__all__ = [
    "MAX_COMMAND_BYTES",
    "CommandRequest",
    "draft_command",
    "enqueue",
    "enqueue_for_all",
]


MAX_COMMAND_BYTES = MAX_SIGNED_FRAME_BYTES - 128  # a sequence number adds less than 128 bytes


@dataclass(frozen=True)
class CommandRequest:
    """A command to send, before it has an id, an agent and a sequence number.

    It expires `expires_in_s` seconds after it is added (None: never); `timeout_s` is how long it may run (None: the
    agent's default).
    """

    command_type: str
    parameters: JsonObject
    origin: Origin
    expires_in_s: float | None = None
    timeout_s: float | None = None


def draft_command(request: CommandRequest, created_at: datetime) -> tuple[Command, bytes]:
    """Return a command without a sequence number, and its encoding. Raises DecodeError if an agent would refuse it."""
    expires_at = None if request.expires_in_s is None else created_at + timedelta(seconds=request.expires_in_s)
    draft = Command(
        new_id(), request.command_type, request.parameters, request.origin, created_at, expires_at, request.timeout_s
    )
    try:
        json.dumps(request.parameters, allow_nan=False)  # the encoder would write NaN as null
        body = encode([draft])
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DecodeError(f"The command cannot be written as JSON: {error}.", code="not_json") from error
    # Decoding is the validation: whatever the agent's strict codec refuses never reaches the ledger.
    decode_commands(body, received_at=created_at, new_id=new_id, max_bytes=MAX_COMMAND_BYTES)
    return draft, body


def enqueue(connection: sa.Connection, agent: str, draft: Command, body: bytes, now: datetime) -> Command:
    """Within a transaction, write a draft with the agent's next sequence number; return it with that number."""
    sequence = next_sequence(connection, agent, now)
    connection.execute(COMMANDS.insert().values(**_new_row(draft, agent, sequence, body)))
    return replace(draft, sequence=sequence)


def enqueue_for_all(
    connection: sa.Connection, agents: Sequence[str], draft: Command, operation_id: str, now: datetime
) -> None:
    """Within a transaction, write a draft for each agent, with its own id and sequence number."""
    commands = []
    for agent in get_or_create_all(connection, agents, now):
        own = replace(draft, id=new_id())
        row = _new_row(own, agent.name, SequenceNumber(agent.epoch, agent.next_number), encode([own]))
        commands.append({**row, "operation_id": operation_id})
    connection.execute(COMMANDS.insert(), commands)
    numbered = AGENTS.update().where(AGENTS.c.name.in_(agents))
    connection.execute(numbered.values(next_number=AGENTS.c.next_number + 1, forgotten_at=None))


def _new_row(command: Command, agent: str, sequence: SequenceNumber, body: bytes) -> dict[str, Any]:
    return {
        "id": command.id,
        "agent": agent,
        "epoch": sequence.epoch,
        "number": sequence.number,
        "body": body.decode(),
        "state": CommandState.QUEUED,
        "to_send": True,
        "cancel": Cancel.NO,
        "created_at": command.created_at.timestamp(),
        "body_check": body_check(command.id, agent, body.decode()),
        "expires_at": command.expires_at.timestamp() if command.expires_at else None,
    }
