"""acm group: groups of agents."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from broker.cli.options import AllowUnknownOption
from broker.cli.output import print_text, table
from broker.cli.session import LEDGER, Session, with_session
from broker.cli.targets import UnknownAgent, check_known, resolve_target
from broker.errors import InvalidArgument
from broker.ledger.enqueue import CommandRequest
from broker.ledger.groups import check_group_name
from broker.system.text_files import read_text
from broker.system.toml_text import load_toml
from broker.text import counted

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group. A group exists while it has members.")]
Agents = Annotated[list[str], typer.Argument(metavar="AGENT...", help="Names of agents.")]


@app.command(epilog="Example: acm group add edge web-01 web-02")
@with_session(LEDGER, json=False, creates_ledger=True)
def add(session: Session, group: Group, agents: Agents, allow_unknown: AllowUnknownOption = False) -> None:
    """Add agents to a group."""
    if not allow_unknown:
        check_known(session.ledger, agents)
    session.ledger.groups.add(group, agents)
    print_text(_members(group, session.ledger.groups.members(group)))


@app.command(epilog="Example: acm group remove edge web-02")
@with_session(LEDGER, json=False)
def remove(session: Session, group: Group, agents: Agents) -> None:
    """Remove agents from a group."""
    session.ledger.groups.remove(group, agents)
    print_text(_members(group, session.ledger.groups.members(group)))


@app.command("list", epilog="Example: acm group list --json")
@with_session(LEDGER, only_reads=True)
def list_groups(session: Session) -> None:
    """List groups with their members."""
    groups = session.ledger.groups.all()
    cells = ((group, ", ".join(agents)) for group, agents in groups.items())
    session.show(groups, table(counted(len(groups), "group"), ("group", "agents"), cells))


@app.command(epilog="Example: acm group configure edge sensor.toml")
@with_session(LEDGER, json=False)
def configure(
    session: Session,
    group: Group,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration file, or a .tar.gz of several.")],
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="Leave the syntax of a .toml or .json file to the agents, whose configuration.syntax decides.",
        ),
    ] = False,
) -> None:
    """Set the group's configuration, and send it to its members.

    To send it to one agent again, use acm send AGENT fetch-config.
    """
    if not unchecked:
        _check_syntax(file)
    ledger = session.ledger
    target = resolve_target(ledger, None, group, everyone=False, allow_unknown=False)
    artifact = ledger.blobs.put(file)
    ledger.groups.configure(group, artifact)
    parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
    request = CommandRequest("apply-centralized-configuration", parameters, session.origin)
    operation = ledger.add_operation(target.agents, target.description, request)
    print_text(operation.id)


@app.command(epilog="Example: acm group show edge")
@with_session(LEDGER, only_reads=True)
def show(session: Session, group: Group) -> None:
    """Print the members of a group, one per line."""
    agents = session.ledger.groups.members(check_group_name(group))
    if not agents and not session.ledger.groups.is_configured(group):
        raise UnknownAgent(
            f"There is no group {group!r}: no agent is in it. `acm group list` shows all groups.", code="unknown_group"
        )
    if agents or session.as_json:
        session.show(agents, "\n".join(agents))
    else:
        print_text(_members(group, agents), to_stderr=True)


def _check_syntax(file: Path) -> None:
    """Raise InvalidArgument for a file that agents refuse by default. Only the agents read YAML and archives."""
    parsers: dict[str, Callable[[str], object]] = {
        ".toml": load_toml,
        ".json": partial(json.loads, parse_int=str),  # which has no bound
    }
    parse = parsers.get(file.suffix)
    if parse is None:
        return
    try:
        parse(read_text(file))
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}.", code="unreadable_file") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"{file} is not valid {file.suffix[1:].upper()}: {error}. The group keeps its configuration. "
            "If the agents read it nevertheless, add --unchecked.",
            code="invalid_configuration",
        ) from error


def _members(group: str, agents: list[str]) -> str:
    return f"Members of {group}: {', '.join(agents)}." if agents else f"Group {group} has no members."
