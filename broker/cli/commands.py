"""acm commands, show and cancel: the commands in the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from broker.cli.options import AbandonOption, LimitOption
from broker.cli.output import id_column, literal, newest_of, second, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import check_known
from broker.command_types import parameters_of
from broker.contract.codec import to_json
from broker.contract.commands import mask_secret_parameters
from broker.contract.messages import JsonObject
from broker.contract.states import Outcome
from broker.errors import LedgerError
from broker.ledger.commands import LedgerRow
from broker.ledger.tables import CommandState
from broker.text import counted, printable, rfc3339

__all__ = [
    "app",
    "command_json",
    "command_panel",
    "commands_table",
    "outcome_text",
]


_SUCCESS_COLOUR, _ERROR_COLOUR, _OPEN_COLOUR = "green", "red", "yellow"
app = typer.Typer()
CommandId = Annotated[str, typer.Argument(metavar="ID", help="Id of the command.")]


@app.command(epilog="Example: acm commands --agent web-01 --state completed --json")
@with_session(LEDGER, only_reads=True)
def commands(
    session: Session,
    agent: Annotated[
        str | None, typer.Option("--agent", metavar="AGENT", help="Show only commands of this agent.")
    ] = None,
    state: Annotated[CommandState | None, typer.Option("--state", help="Show only commands in this state.")] = None,
    operation: Annotated[
        str | None, typer.Option("--operation", metavar="ID", help="Show only commands of this operation.")
    ] = None,
    limit: LimitOption = 100,
) -> None:
    """List commands, newest first."""
    if agent is not None:
        check_known(session.ledger, [agent], can_allow=False)
    if operation is not None:
        session.ledger.operations.get(operation)
    rows, title = newest_of(session.ledger.commands(agent, state, operation, limit + 1), limit, "command")
    session.show([command_json(row) for row in rows], commands_table(rows, title))


@app.command(epilog="Example: acm show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --json")
@with_session(LEDGER, only_reads=True)
def show(session: Session, command_id: CommandId) -> None:
    """Show a command with its state and result."""
    row = session.ledger.get(command_id)
    last_error = None if row.result else session.ledger.last_error_of(row.agent)
    session.show(command_json(row, last_error), command_panel(row, last_error))


@app.command(epilog="Example: acm cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER)
def cancel(session: Session, command_id: CommandId, abandon: AbandonOption = False) -> None:
    """Request the cancellation of a command. Its result reports the outcome."""
    if session.ledger.get(command_id).state is CommandState.COMPLETED:
        raise LedgerError(
            f"The command {command_id} is already completed: there is nothing to cancel. `acm show` has its result.",
            code="already_completed",
        )
    row = session.ledger.abandon(command_id) if abandon else session.ledger.request_cancel(command_id)
    session.show(command_json(row), command_panel(row))


def command_json(row: LedgerRow, last_error: str | None = None) -> JsonObject:
    """Return a command, its state and its result as JSON, secret parameters masked.

    `last_error` is the last error in the status of the command's agent, or None to leave it out. `verdict_of_server` is
    there if the server had completed the command before the agent's result came.
    """
    shown = {
        "id": row.command.id,
        "agent": row.agent,
        "type": row.command.type,
        "state": str(row.state),
        "cancel_requested": row.cancel_requested,
        "expires_at": rfc3339(row.command.expires_at),
        "command": to_json(row.command),
        "completed_at": rfc3339(row.completed_at),
        "result": row.result,
    }
    if last_error is not None:
        shown["agent_last_error"] = last_error
    if row.verdict is not None:
        shown["verdict_of_server"] = row.verdict
    masked: JsonObject = mask_secret_parameters(row.command, shown, parameters_of(row.command.type))
    return masked


def commands_table(rows: Sequence[LedgerRow], title: str | None = None) -> Table:
    """Return commands as a table; by default its title is their number."""
    expiring = any(row.command.expires_at for row in rows)
    columns: list[str | Column] = [id_column(), "agent", "type", "created (UTC)", "state", "outcome"]
    if expiring:
        columns.insert(4, "expires (UTC)")
    return table(title or counted(len(rows), "command"), columns, (_cells(row, expiring=expiring) for row in rows))


def _cells(row: LedgerRow, *, expiring: bool) -> list[str | Text]:
    command = row.command
    times = [command.created_at, command.expires_at] if expiring else [command.created_at]
    return [command.id, row.agent, command.type, *map(second, times), row.state, outcome_text(row)]


def command_panel(row: LedgerRow, last_error: str | None = None) -> Panel:
    """Return a command with its result, and its agent's last error unless None."""
    parts: list[RenderableType] = [_facts(row)]
    result = row.result or {}
    if result:
        parts.append(Text(printable(result["message"]), "bold"))
    if row.verdict is not None:
        ended = f"before this result came, the server had completed the command as {row.verdict['code']}"
        parts.append(Text(f"{printable(ended)}: {printable(row.verdict['message'])}"))
    if last_error is not None:
        parts.append(Text(f"last error of {row.agent}: {printable(last_error)}"))
    for name, value in (("data", result.get("data")), *(result.get("output") or {}).items()):
        if value:
            parts.append(Text(f"{printable(name)}: {printable(_text(value))}"))
    return Panel(Group(*parts), title=literal(f"{row.command.type} on {row.agent}"), border_style=_colour(row))


def outcome_text(row: LedgerRow) -> Text:
    """Return a result's outcome and code, coloured by the outcome; empty without a result."""
    result = row.result or {}
    words = " ".join(str(word) for word in (result.get("outcome"), result.get("code")) if word)
    return Text(printable(words), _colour(row))


def _facts(row: LedgerRow) -> Text:
    text = Text(f"{printable(row.command.id)}  ", "dim").append(str(row.state), _colour(row))
    if row.result:
        text.append(" · ").append_text(outcome_text(row))
    elif row.cancel_requested:
        text.append(" · cancel requested")
    if expires_at := row.command.expires_at:
        verb = "expired" if expires_at <= datetime.now(UTC) else "expires"
        text.append(f" · {verb} at {second(expires_at)} UTC")
    return text


def _colour(row: LedgerRow) -> str:
    if row.result is None:
        return _OPEN_COLOUR
    return _SUCCESS_COLOUR if row.result.get("outcome") == Outcome.SUCCESS else _ERROR_COLOUR


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()
