"""acm commands, show and cancel: the commands that were sent."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from broker.cli.completions import complete_agents, complete_commands, complete_operations, complete_types
from broker.cli.documents import document_of, document_of_agent, document_of_commands
from broker.cli.identifiers import find_command_id, find_operation_id, names_operation
from broker.cli.moments import parse_moment
from broker.cli.options import AbandonOption, LimitOption
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import literal, second
from broker.contract.messages import JsonObject, RunningProgress
from broker.contract.states import CommandState, Outcome
from broker.errors import BrokerError
from broker.fleet.models import CommandFilter, CommandView
from broker.fleet.view_facts import progress_of
from broker.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.panel import Panel
    from rich.text import Text

    from broker.fleet.port import Fleet

__all__ = [
    "COMMANDS",
    "CommandId",
    "app",
    "command_panel",
]


_SUCCESS_COLOUR, _ERROR_COLOUR, _OPEN_COLOUR = "green", "red", "yellow"
app = typer.Typer()
CommandId = Annotated[
    str,
    typer.Argument(metavar="ID", autocompletion=complete_commands, help="Id of the command, or the beginning of it."),
]
SinceOption = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        metavar="TIME",
        parser=parse_moment,
        help="Show only what was created since: 2026-11-29T08:05 or 2h.",
    ),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option("--until", metavar="TIME", parser=parse_moment, help="Show only what was created before this time."),
]


def _of_result(command: CommandView, member: str) -> str:
    return str((command.result or {}).get(member) or "")


def _colour(command: CommandView) -> str:
    if command.result is None:
        return _OPEN_COLOUR
    return _SUCCESS_COLOUR if command.outcome is Outcome.SUCCESS else _ERROR_COLOUR


COMMANDS = Listing[CommandView](
    "command",
    (
        Column("id", lambda it: it.id),
        Column("agent", lambda it: it.agent),
        Column("type", lambda it: it.type),
        time_column("created", lambda it: it.created_at),
        Column("state", lambda it: it.state, style=_colour),
        Column("outcome", lambda it: it.outcome, style=_colour),
        Column("code", lambda it: _of_result(it, "code"), style=_colour),
        time_column("expires", lambda it: it.expires_at),
        time_column("completed", lambda it: it.completed_at, Shown.WIDE),
        Column("origin", lambda it: it.command["origin"]["name"], Shown.WIDE),
        Column("message", lambda it: _of_result(it, "message"), Shown.WIDE),
        Column("cancel_requested", lambda it: "yes" if it.cancel_requested else "no", Shown.ON_REQUEST),
    ),
    name=lambda it: it.id,
    document=document_of,
)


@app.command(epilog="Example: acm commands --agent web-01 --state completed --json")
@with_session(LEDGER, over_api=True, lists=COMMANDS, watches=True, only_reads=True)
def commands(
    session: Session,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="AGENT", autocompletion=complete_agents, help="Show only commands of this agent."
        ),
    ] = None,
    state: Annotated[CommandState | None, typer.Option("--state", help="Show only commands in this state.")] = None,
    command_type: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", autocompletion=complete_types, help="Show only commands of this type."),
    ] = None,
    outcome: Annotated[Outcome | None, typer.Option("--outcome", help="Show only those that ended so.")] = None,
    operation: Annotated[
        str | None,
        typer.Option(
            "--operation",
            metavar="ID",
            autocompletion=complete_operations,
            help="Show only commands of this operation.",
        ),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 100,
) -> None:
    """List commands, newest first."""
    fleet = session.fleet
    if operation is not None:
        operation = fleet.operation(find_operation_id(fleet, operation)).operation.id
    which = CommandFilter(agent, command_type, state, outcome, operation, since, until)

    session.show_list(COMMANDS, lambda: fleet.newest_commands(which, limit + 1), limit=limit)


@app.command(epilog="Example: acm show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --json")
@with_session(LEDGER, over_api=True, only_reads=True)
def show(session: Session, command_id: CommandId) -> None:
    """Show a command with its state and result, or an operation as `acm operation show` does."""
    fleet = session.fleet
    if names_operation(fleet, command_id):
        from broker.cli.operation import show_now

        show_now(session, command_id)
        return
    command = fleet.command(find_command_id(fleet, command_id))
    status = None if command.result else _status(fleet, command.agent)
    last_error, progress = (status or {}).get("last_error"), progress_of(command, status)
    document = document_of_commands([command]) | document_of_agent(last_error, progress)
    session.show(document, command_panel(command, last_error, progress))


@app.command(epilog="Example: acm cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
@with_session(LEDGER, over_api=True)
def cancel(session: Session, command_id: CommandId, abandon: AbandonOption = False) -> None:
    """Request the cancellation of a command. Its result reports the outcome."""
    fleet = session.fleet
    command_id = find_command_id(fleet, command_id)
    command = fleet.abandon(command_id) if abandon else fleet.cancel(command_id)
    session.show(document_of(command), command_panel(command))


def _status(fleet: "Fleet", agent: str) -> JsonObject | None:
    """Return the status of an agent; None without one, and for an agent that was forgotten."""
    try:
        return fleet.agent(agent).status
    except BrokerError as error:
        if error.code != "unknown_agent":
            raise
        return None


def command_panel(
    command: CommandView, last_error: str | None = None, progress: RunningProgress | None = None
) -> "Panel":
    """Return a command with its result, and unless None its agent's last error and how far it is."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    from broker.cli.command_facts import facts_grid

    parts: list[RenderableType] = [_state(command, progress), facts_grid(command)]
    result = command.result or {}
    if result:
        parts.append(Text(printable(result["message"]), "bold"))
    if command.verdict_of_server is not None:
        verdict = command.verdict_of_server
        ended = f"before this result came, the server had completed the command as {verdict['code']}"
        parts.append(Text(f"{printable(ended)}: {printable(verdict['message'])}"))
    if last_error is not None:
        parts.append(Text(f"last error of {command.agent}: {printable(last_error)}"))
    for name, value in (("data", result.get("data")), *(result.get("output") or {}).items()):
        if value:
            parts.append(Text(f"{printable(name)}: {printable(_text(value))}"))
    title = literal(f"{command.type} on {command.agent}")
    return Panel(Group(*parts), title=title, border_style=_colour(command))


def _state(command: CommandView, progress: RunningProgress | None) -> "Text":
    from rich.text import Text

    text = Text(f"{printable(command.id)}  ", "dim").append(str(command.state), _colour(command))
    if command.result:
        words = (_of_result(command, "outcome"), _of_result(command, "code"))
        text.append(" · ").append(printable(" ".join(filter(None, words))), _colour(command))
    if progress is not None:
        text.append(f" · {printable(str(progress))}")
    if command.cancel_requested and not command.result:
        text.append(" · cancel requested")
    if expires_at := command.expires_at:
        verb = "expired" if expires_at <= datetime.now(UTC) else "expires"
        text.append(f" · {verb} at {second(expires_at)} UTC")
    return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value)).decode()
