"""acm send: a command for one agent or for many."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer

from broker.cli.arguments import check_utf8, keys_on_command_line, read_parameters
from broker.cli.checks import check_secrets
from broker.cli.completions import complete_words
from broker.cli.confirmation import confirm_broad
from broker.cli.delivery import follow
from broker.cli.files import describe_files, put_files, store_file
from broker.cli.options import AllowUnknownOption, ForceOption, WaitCommand, WaitOption
from broker.cli.session import LEDGER, Session, with_session
from broker.command_types import known_command_types, parameters_of, text_parameters
from broker.console.output import print_text
from broker.contract.commands import COMMAND_TYPES, mask_secret_parameters
from broker.contract.messages import Command, JsonObject, Origin
from broker.durations import parse_duration
from broker.errors import InvalidArgument
from broker.fleet.models import SendRequest
from broker.fleet.patterns import is_pattern
from broker.text import counted

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
@with_session(LEDGER, over_api=True, creates_ledger=True)
def send(
    session: Session,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[AGENT] TYPE [KEY=VALUE]...",
            autocompletion=complete_words,
            help="The agent (or several, separated by commas, or a pattern such as 'web-*'; omitted with --group or "
            "--all), the command type, and its parameters. The value of a text parameter is "
            "text; any other that is valid JSON is read as JSON.",
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
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before sending to all agents, or to those of a pattern.")
    ] = False,
    force: ForceOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, and show what would be sent to which agents.")
    ] = False,
) -> None:
    """Add a command for one or more agents to the ledger. The running server sends it.

    Without --wait, the id of the command or operation is printed. With --wait, the exit code reports the outcome.
    """
    if dry_run:
        session.change_nothing()
    names, command_type, pairs = _split(words, names_agents=group is None and not everyone)
    types, warnings = known_command_types()
    for warning in warnings:
        print_text(f"acm: {warning}", to_stderr=True)
    kind = types.get(command_type)
    given = read_parameters(pairs, parameters, texts=text_parameters(kind.parameters) if kind else frozenset())
    check_secrets(command_type, kind, keys_on_command_line(pairs, parameters))
    agents = [] if names is None else [word.strip() for word in names.split(",")]
    request = SendRequest(
        command_type,
        given | describe_files(files or []),
        agents=tuple(agents),
        group=group,
        all=everyone,
        expires_in_s=expires_in,
        timeout_s=timeout,
        dry_run=dry_run,
        allow_unknown=allow_unknown,
        force=force,
    )
    if dry_run:
        _show_plan(session, request)
        return
    is_broad = everyone or any(map(is_pattern, agents))  # to agents that its user has not named
    if files or (is_broad and not yes):
        planned = session.fleet.send(replace(request, dry_run=True))
        if is_broad and not yes:
            confirm_broad(command_type, planned.agents)
        store = partial(store_file, session.blobs, quiet=session.printer.for_programs)
        request = replace(request, parameters=given | put_files(store, files or []))
    follow(session, session.fleet.send(request), wait)


def _show_plan(session: Session, request: SendRequest) -> None:
    sent = session.fleet.send(request)
    for warning in sent.warnings:
        print_text(f"acm: {warning}", to_stderr=True)
    draft = Command("", request.type, request.parameters, Origin("", ""), datetime.now(UTC))
    shown: JsonObject = mask_secret_parameters(draft, request.parameters, parameters_of(request.type))
    document = {
        "dry_run": True,
        "type": request.type,
        "parameters": shown,
        "agents": list(sent.agents),
        "expires_in_s": request.expires_in_s,
        "timeout_s": request.timeout_s,
    }
    lines = [f"Would send {request.type} to {counted(len(sent.agents), 'agent')}:", *sent.agents]
    session.show(document, "\n".join([*lines, f"with the parameters {json.dumps(shown)}"]))


def _split(words: list[str], *, names_agents: bool) -> tuple[str | None, str, list[str]]:
    rest = list(words)
    names = rest.pop(0) if names_agents else None
    if not rest:
        raise InvalidArgument("Missing argument TYPE: write acm send AGENT TYPE [KEY=VALUE]...", code="missing_type")
    check_utf8("The type", rest[0])
    return names, rest[0], rest[1:]
