"""acm send: a command for one agent or for many."""

import sys
from typing import Annotated

import typer

from broker.cli.arguments import check_utf8, keys_on_command_line, read_parameters
from broker.cli.blob import put_files
from broker.cli.commands import command_json, command_panel
from broker.cli.operation import operation_json, operation_view, progress_and_rows
from broker.cli.options import AllowUnknownOption, WaitCommand, WaitOption
from broker.cli.output import named_if_it_fails, print_text
from broker.cli.progress import status_line, waiting_for
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import Target, resolve_target
from broker.command_types import known_command_types
from broker.contract.commands import COMMAND_TYPES, is_secret, parse_parameters
from broker.durations import parse_duration
from broker.errors import InvalidArgument
from broker.ledger.enqueue import CommandRequest
from broker.ledger.waiting import require_operation_success, require_success, wait_for_command

__all__ = [
    "app",
]


app = typer.Typer()
_EXAMPLES = (
    "Types: " + ", ".join(COMMAND_TYPES) + " (`acm types` describes them). "
    "Examples: acm send web-01 restart-agent --wait | "
    "acm send web-01 get-agent-configuration section=service --expires-in 10m --json | "
    "acm send 'web-*' restart-agent --wait 5m | acm send --group edge start-agent"
)


@app.command(cls=WaitCommand, epilog=_EXAMPLES)
@with_session(LEDGER, creates_ledger=True)
def send(
    session: Session,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[AGENT] TYPE [KEY=VALUE]...",
            help="The agent (or several, separated by commas, or a pattern such as 'web-*'; omitted with --group or "
            "--all), the command type, and its parameters. A value that is valid JSON is read as JSON, else as text.",
        ),
    ],
    group: Annotated[
        str | None, typer.Option("--group", metavar="GROUP", help="Send to every agent of a group.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Send to every agent in the ledger.")] = False,
    parameters: Annotated[
        str | None, typer.Option("--parameters", metavar="JSON|@FILE", help="All parameters as one JSON object.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="KEY=FILE", help="Store a file as a blob, and refer to it by this parameter."),
    ] = None,
    expires_in: Annotated[
        float | None,
        typer.Option(
            "--expires-in",
            metavar="DURATION",
            parser=parse_duration,
            help="Do not start it after this time, such as 10m.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="DURATION", parser=parse_duration, help="Stop it after running this long, such as 30s."
        ),
    ] = None,
    wait: WaitOption = None,
    allow_unknown: AllowUnknownOption = False,
) -> None:
    """Add a command for one or more agents to the ledger. The running server sends it.

    Without --wait, the id of the command or operation is printed. With --wait, the exit code reports the outcome.
    """
    names, command_type, pairs = _split(words, names_agents=group is None and not everyone)
    given = read_parameters(pairs, parameters)
    target = resolve_target(session.ledger, names, group, everyone=everyone, allow_unknown=allow_unknown)
    given |= put_files(session.ledger.blobs, files or [])
    request = CommandRequest(command_type, given, session.origin, expires_in, timeout)
    _check_parameters(request, keys_on_command_line(pairs, parameters))
    if target.single:
        _send_one(session, target, request, wait)
    else:
        _send_many(session, target, request, wait)


def _split(words: list[str], *, names_agents: bool) -> tuple[str | None, str, list[str]]:
    rest = list(words)
    names = rest.pop(0) if names_agents else None
    if not rest:
        raise InvalidArgument("Missing argument TYPE: write acm send AGENT TYPE [KEY=VALUE]...", code="missing_type")
    check_utf8("The type", rest[0])
    return names, rest[0], rest[1:]


def _check_parameters(request: CommandRequest, on_command_line: set[str]) -> None:
    """Refuse what the agent would refuse, if the type is known here; an agent may have other types.

    Raises InvalidArgument for a secret on the command line, and InvalidParameters.
    """
    types, warnings = known_command_types()
    for warning in warnings:
        print_text(f"acm: {warning}", to_stderr=True)
    kind = types.get(request.command_type)
    for name in sorted(on_command_line):
        if is_secret(request.command_type, name, kind.parameters if kind else None):
            raise InvalidArgument(
                f"{name} is secret, and command lines are visible to every user of the machine: "
                f"write {name}=@FILE, or {name}=@/dev/stdin.",
                code="secret_on_command_line",
            )
    if kind is None:
        print_text(
            f"acm: Unknown command type {request.command_type!r}, sent anyway: the agent may support it.",
            to_stderr=True,
        )
    else:
        parse_parameters(request.command_type, kind.parameters, request.parameters)


def _send_one(session: Session, target: Target, request: CommandRequest, wait_s: float | None) -> None:
    ledger = session.ledger
    command = ledger.add_command(target.agents[0], request)
    with named_if_it_fails("command", command.id, f"acm show {command.id}"):
        if wait_s is None:
            session.show(command_json(ledger.get(command.id)) if session.as_json else {}, command.id)
            return
        with waiting_for(session, wait_s, "command", command.id) as wait, status_line(quiet=session.as_json) as show:
            row = wait_for_command(ledger, command.id, wait, show)
        session.show(command_json(row), command_panel(row))
        sys.stdout.flush()
    require_success(row, wait_s)


def _send_many(session: Session, target: Target, request: CommandRequest, wait_s: float | None) -> None:
    ledger = session.ledger
    operation = ledger.add_operation(target.agents, target.description, request)
    with named_if_it_fails("operation", operation.id, f"acm operation show {operation.id}"):
        if wait_s is None and not session.as_json:  # the commands may be many, and long
            print_text(operation.id)
            return
        progress, rows = progress_and_rows(session, operation, wait_s)
        session.show(operation_json(operation, progress, rows), operation_view(operation, progress, rows))
        sys.stdout.flush()
    if wait_s is not None:
        require_operation_success(operation, progress, wait_s)
