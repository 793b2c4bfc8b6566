"""acm send: a command for one agent or for many."""

from typing import Annotated

import typer
from rich.console import Console

from broker.cli.arguments import read_parameters
from broker.cli.blob import put_files
from broker.cli.options import (
    AllowUnknownOption,
    ConfigOption,
    JsonOption,
    LedgerOption,
    WaitOption,
    open_ledger_of,
    origin_of_user,
)
from broker.cli.output import print_json, say
from broker.cli.targets import Target, resolve_target
from broker.cli.views import command_json, command_panel, operation_json, operation_view
from broker.command_types import known_command_types
from broker.contract.commands import COMMAND_TYPES, is_secret, parse_parameters
from broker.durations import parse_duration
from broker.errors import InvalidArgument
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.waiting import judge, judge_operation, wait_for_command, wait_for_operation

__all__ = [
    "SEND_EXAMPLES",
    "send",
]


SEND_EXAMPLES = (
    "Types: " + ", ".join(COMMAND_TYPES) + " (`acm types` says more). "
    "Examples: acm send web-01 restart-agent --wait | "
    "acm send web-01 get-agent-configuration section=service --expires-in 10m --json | "
    "acm send 'web-*' restart-agent --wait 5m | acm send --group edge start-agent"
)


def send(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[AGENT] TYPE [KEY=VALUE]...",
            help="The agent (or several, parted by commas, or a pattern such as 'web-*'; none with --group or --all), "
            "the command type, and its parameters; a value that is JSON is taken as such.",
        ),
    ],
    group: Annotated[str | None, typer.Option("--group", help="Send to every agent of a group.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Send to every agent that the ledger knows.")] = False,
    parameters: Annotated[
        str | None, typer.Option("--parameters", metavar="JSON|@FILE", help="All parameters as a JSON object.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="KEY=FILE", help="Store a file as a blob and refer to it by this parameter."),
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="DURATION", help="Do not begin it later than this: 10m.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="DURATION", help="How long it may run: 30s.")
    ] = None,
    wait: WaitOption = None,
    allow_unknown: AllowUnknownOption = False,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a command into the ledger; the running server sends it. With --wait the outcome is the exit code."""
    names, command_type, pairs = _part(words, named=group is None and not everyone)
    given = read_parameters(pairs, parameters)
    expires_in_s, timeout_s, wait_s = (parse_duration(text) if text else None for text in (expires_in, timeout, wait))
    with open_ledger_of(config, ledger) as opened:
        target = resolve_target(opened, names, group, everyone=everyone, allow_unknown=allow_unknown)
        given |= put_files(opened.blobs, files or [])
        request = CommandRequest(command_type, given, origin_of_user(), expires_in_s, timeout_s)
        _check_parameters(request, said=_keys_said(pairs, parameters))
        send_to = _send_one if target.single else _send_many
        send_to(opened, target, request, wait_s, as_json=as_json)


def _part(words: list[str], *, named: bool) -> tuple[str | None, str, list[str]]:
    rest = list(words)
    names = rest.pop(0) if named else None
    if not rest:
        raise InvalidArgument("Missing argument TYPE: write acm send AGENT TYPE [KEY=VALUE]...")
    return names, rest[0], rest[1:]


def _keys_said(pairs: list[str], document: str | None) -> set[str]:
    """Return the parameters whose values stand on the command line, not in a file."""
    literal = {} if document is None or document.startswith("@") else read_parameters([], document)
    return {*literal, *(key for key, _, value in (pair.partition("=") for pair in pairs) if not value.startswith("@"))}


def _check_parameters(request: CommandRequest, said: set[str]) -> None:
    """Refuse what the agent would refuse, where the type is known here; an agent may know types of its own."""
    types, warnings = known_command_types()
    for warning in warnings:
        say(f"acm: {warning}", to_stderr=True)
    kind = types.get(request.command_type)
    for name in sorted(said):
        if is_secret(request.command_type, name, kind.parameters if kind else None):
            raise InvalidArgument(
                f"{name} is secret, and every user of the machine sees command lines: "
                f"write {name}=@FILE, or {name}=@/dev/stdin."
            )
    if kind is None:
        say(f"acm: {request.command_type!r} is no type that acm knows; the agent decides.", to_stderr=True)
    else:
        parse_parameters(request.command_type, kind.parameters, request.parameters)


def _send_one(ledger: Ledger, target: Target, request: CommandRequest, wait_s: float | None, *, as_json: bool) -> None:
    command = ledger.add_command(target.agents[0], request)
    row = ledger.get(command.id)
    if wait_s:
        row = wait_for_command(ledger, row, wait_s, quiet=as_json)
    if as_json:
        print_json(command_json(row))
    elif wait_s:
        Console().print(command_panel(row))
    else:
        say(row.command.id)
    if wait_s:
        judge(row, wait_s)


def _send_many(ledger: Ledger, target: Target, request: CommandRequest, wait_s: float | None, *, as_json: bool) -> None:
    operation = ledger.add_operation(target.agents, target.words, request)
    if wait_s:
        progress = wait_for_operation(ledger, operation, wait_s, quiet=as_json)
    else:
        progress = ledger.operations.progress(operation.id)
    rows = ledger.commands(operation_id=operation.id, limit=None)
    if as_json:
        print_json(operation_json(operation, progress, rows))
    elif wait_s:
        Console().print(operation_view(operation, progress, rows))
    else:
        say(operation.id)
    if wait_s:
        judge_operation(operation, progress, wait_s)
