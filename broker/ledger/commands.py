"""Reading commands from the ledger: one by its id, or the newest."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from broker.contract.messages import Command, JsonObject
from broker.errors import LedgerError
from broker.ledger.completion import command_of
from broker.ledger.damage import decoded, readable_result, state_in
from broker.ledger.records import CommandRecord, read_all, read_one
from broker.ledger.tables import COMMANDS, PRUNED_COMMANDS, Cancel, CommandState, moment

__all__ = [
    "LedgerRow",
    "UnknownCommand",
    "find_command",
    "newest_commands",
]


class UnknownCommand(LedgerError):
    """The ledger has no command with this id."""

    code = "unknown_command"


@dataclass(frozen=True)
class LedgerRow:
    """One command in the ledger; `result` is the agent's final feedback once it is completed. Times are UTC.

    `verdict` is the result that the server itself had given before, when it no longer expected the agent's.
    """

    command: Command
    agent: str
    state: CommandState
    cancel_requested: bool
    result: JsonObject | None
    completed_at: datetime | None
    verdict: JsonObject | None = None


def find_command(connection: sa.Connection, command_id: str) -> LedgerRow:
    """Return one command; raises UnknownCommand."""
    record = read_one(connection, COMMANDS.select().where(COMMANDS.c.id == command_id), CommandRecord)
    if record is None:
        pruned = PRUNED_COMMANDS.select().where(PRUNED_COMMANDS.c.id == command_id)
        if (row := connection.execute(pruned).one_or_none()) is not None:
            ended = f"{moment(row.completed_at):%Y-%m-%d}"
            raise UnknownCommand(
                f"The command {command_id} to {row.agent} ended with {row.outcome} on {ended}; `acm prune` has removed "
                "it.",
                code="pruned_command",
            )
        raise UnknownCommand(f"No command has the id {command_id[:128]!r}; `acm commands` lists them.")
    return _ledger_row(record)


def newest_commands(
    connection: sa.Connection,
    agent: str | None,
    state: CommandState | None,
    operation_id: str | None,
    limit: int | None,
) -> list[LedgerRow]:
    """Return the newest commands, newest first; each argument that is not None is a filter."""
    query = COMMANDS.select().order_by(COMMANDS.c.created_at.desc(), COMMANDS.c.number.desc()).limit(limit)
    if agent is not None:
        query = query.where(COMMANDS.c.agent == agent)
    if state is not None:
        query = query.where(COMMANDS.c.state == state)
    if operation_id is not None:
        query = query.where(COMMANDS.c.operation_id == operation_id)
    return [_ledger_row(record) for record in read_all(connection, query, CommandRecord)]


def _ledger_row(record: CommandRecord) -> LedgerRow:
    cancelling, completed_at = record.cancel != Cancel.NO, moment(record.completed_at)
    result, verdict = readable_result(record), decoded(record.verdict, dict)
    return LedgerRow(
        command_of(record), record.agent, state_in(record.state), cancelling, result, completed_at, verdict
    )
