"""Adds commands to agents' queues: a draft is validated, then numbered and written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from broker.contract.codec import decode_commands, encode
from broker.contract.limits import MAX_SIGNED_FRAME_BYTES
from broker.contract.messages import Command, JsonObject, Origin
from broker.contract.strict_json import DecodeError
from broker.contract.trace_context import TraceContext
from broker.ledger.agents import get_or_create_all
from broker.ledger.damage import body_check
from broker.ledger.event_types import EventType
from broker.ledger.ids import new_id
from broker.ledger.noted_events import note, note_all
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
_INSERT = COMMANDS.insert().values(  # what is the same in each row is in the text
    state=sa.literal_column(f"'{CommandState.QUEUED}'"),
    to_send=sa.true(),
    cancel=sa.literal_column(f"'{Cancel.NO}'"),
)


@dataclass(frozen=True)
class CommandRequest:
    """A command to send, before it has an id, an agent and a sequence number.

    It expires `expires_in_s` seconds after it is added (None: never); `timeout_s` is how long it may run (None: the
    agent's default). `trace` is the context that it is created in, if that is recorded.
    """

    command_type: str
    parameters: JsonObject
    origin: Origin
    expires_in_s: float | None = None
    timeout_s: float | None = None
    trace: TraceContext | None = None


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


def enqueue(
    connection: sa.Connection,
    agent: str,
    draft: Command,
    body: bytes,
    now: datetime,
    trace: TraceContext | None = None,
) -> Command:
    """Within a transaction, write a draft with the agent's next sequence number; return it with that number."""
    sequence = next_sequence(connection, agent, now)
    row = _own_columns(draft.id, agent, sequence.epoch, sequence.number, body.decode())
    connection.execute(_INSERT, {**_common_columns(draft, None, trace), **row})
    note(connection, EventType.COMMAND_CREATED, agent, draft.id, now=now)
    return replace(draft, sequence=sequence)


def enqueue_for_all(
    connection: sa.Connection,
    agents: Sequence[str],
    draft: Command,
    operation_id: str,
    now: datetime,
    trace: TraceContext | None = None,
) -> None:
    """Within a transaction, write a draft for each agent, with its own id and sequence number.

    The draft is encoded once, and the id replaced in its text: to encode it for each agent costs 10 µs more.
    """
    before, after = encode([draft]).decode().split(draft.id, 1)
    common = _common_columns(draft, operation_id, trace)
    rows = []
    for agent in get_or_create_all(connection, agents, now):
        own_id = new_id()
        own = _own_columns(own_id, agent.name, agent.epoch, agent.next_number, f"{before}{own_id}{after}")
        rows.append({**common, **own})
    connection.execute(_INSERT, rows)
    note_all(connection, EventType.COMMAND_CREATED, ((row["agent"], row["id"]) for row in rows), now=now)
    numbered = AGENTS.update().where(AGENTS.c.name.in_(agents))
    connection.execute(numbered.values(next_number=AGENTS.c.next_number + 1, forgotten_at=None))


def _common_columns(draft: Command, operation_id: str | None, trace: TraceContext | None) -> dict[str, Any]:
    traced = {} if trace is None else {"trace": trace.text}
    return traced | {
        "operation_id": operation_id,
        "type": draft.type,
        "created_at": draft.created_at.timestamp(),
        "expires_at": draft.expires_at.timestamp() if draft.expires_at else None,
    }


def _own_columns(command_id: str, agent: str, epoch: int, number: int, body: str) -> dict[str, Any]:
    check = body_check(command_id, agent, body)
    return {"id": command_id, "agent": agent, "epoch": epoch, "number": number, "body": body, "body_check": check}
