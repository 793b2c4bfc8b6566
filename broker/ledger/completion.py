"""Completing a command: by its agent's result, or by the server where no result can or shall be waited for."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.command_types import parameters_of
from broker.contract.codec import encode, to_json
from broker.contract.commands import mask_secrets
from broker.contract.messages import Command, Feedback, SequenceNumber
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, SERVER, Cancel, CommandState

__all__ = [
    "command_of",
    "complete_all",
    "completion",
    "forget_secrets",
    "settle",
]


def command_of(row: Any) -> Command:
    """Return the command in a row of COMMANDS, with its number."""
    body = msgspec.json.decode(row.body, type=Command)
    return replace(body, sequence=SequenceNumber(row.epoch, row.number))


def completion(result: Feedback, digest: str, now: datetime) -> dict[str, Any]:
    """Return what changes in the row of a command by its result."""
    return {
        "state": CommandState.COMPLETED,
        "to_send": False,
        "cancel": Cancel.NO,
        "completed_at": now.timestamp(),
        "digest": digest,
        "result": encode([result]).decode(),
        "outcome": result.outcome,
    }


def settle(connection: sa.Connection, row: Any, code: ErrorCode, message: str, now: datetime) -> None:
    """Complete an open command by the server's own word; what its agent says of it later is kept apart."""
    command = command_of(row)
    generation = connection.scalar(sa.select(AGENTS.c.store_generation).where(AGENTS.c.name == row.agent))
    result = Feedback(
        kind=FeedbackKind.RESULT,
        agent=row.agent,
        store_generation=generation or SERVER,
        incarnation=SERVER,
        status="completed",
        message=message,
        command_id=command.id,
        command=to_json(command),
        sequence=command.sequence,
        outcome=Outcome.ERROR,
        code=code,
        finished_at=now,
        digest=SERVER,
    )
    open_command = COMMANDS.update().where(COMMANDS.c.id == row.id, IS_OPEN)
    if connection.execute(open_command.values(**completion(result, SERVER, now))).rowcount:
        forget_secrets(connection, row.id)


def complete_all(
    connection: sa.Connection,
    which: Sequence[sa.ColumnElement[bool]],
    code: ErrorCode,
    message: str,
    now: datetime,
) -> int:
    """Do so for all open commands of which these conditions hold; return how many."""
    rows = connection.execute(COMMANDS.select().where(IS_OPEN, *which)).all()
    for row in rows:
        settle(connection, row, code, message, now)
    return len(rows)


def forget_secrets(connection: sa.Connection, command_id: str) -> None:
    """Mask what is secret in a command that is completed, and in its result: nobody needs it any more."""
    ours = COMMANDS.c.id == command_id
    row = connection.execute(COMMANDS.select().where(ours)).one()
    command, result = msgspec.json.decode(row.body, type=Command), msgspec.json.decode(row.result)
    shape = parameters_of(command.type)
    kept = replace(command, parameters=mask_secrets(command, command.parameters, shape))
    masked = {"body": encode([kept]), "result": msgspec.json.encode(mask_secrets(command, result, shape))}
    update = COMMANDS.update().where(ours)
    connection.execute(update.values({name: content.decode() for name, content in masked.items()}))
