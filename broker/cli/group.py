"""acm group: groups of agents."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.completions import complete_agents, complete_groups
from broker.cli.documents import document_of
from broker.cli.files import describe_files, store_file
from broker.cli.options import AllowUnknownOption
from broker.cli.session import LEDGER, Session, with_session
from broker.console.listing import Column, Listing
from broker.console.output import print_text
from broker.errors import InvalidArgument
from broker.fleet.models import GroupView, SendRequest
from broker.system.text_files import read_text
from broker.system.toml_text import load_toml

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
Group = Annotated[
    str,
    typer.Argument(
        metavar="GROUP",
        autocompletion=complete_groups,
        help="Name of the group. A group exists while it has members.",
    ),
]
Agents = Annotated[
    list[str], typer.Argument(metavar="AGENT...", autocompletion=complete_agents, help="Names of agents.")
]


_GROUPS = Listing[GroupView](
    "group",
    (Column("group", lambda it: it.name), Column("agents", lambda it: it.agents)),
    name=lambda it: it.name,
    document=document_of,
)


@app.command(epilog="Example: acm group add edge web-01 web-02")
@with_session(LEDGER, over_api=True, creates_ledger=True)
def add(session: Session, group: Group, agents: Agents, allow_unknown: AllowUnknownOption = False) -> None:
    """Add agents to a group."""
    _show_members(session, session.fleet.add_to_group(group, agents, allow_unknown=allow_unknown))


@app.command(epilog="Example: acm group remove edge web-02")
@with_session(LEDGER, over_api=True)
def remove(session: Session, group: Group, agents: Agents) -> None:
    """Remove agents from a group."""
    _show_members(session, session.fleet.remove_from_group(group, agents))


@app.command("list", epilog="Example: acm group list --json")
@with_session(LEDGER, over_api=True, lists=_GROUPS, only_reads=True)
def list_groups(session: Session) -> None:
    """List groups with their members."""
    session.show_list(_GROUPS, session.fleet.groups)


@app.command(epilog="Example: acm group configure edge sensor.toml")
@with_session(LEDGER, over_api=True)
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
    parameters = describe_files([f"artifact={file}"]) | {"group": group}
    request = SendRequest("apply-centralized-configuration", parameters, group=group, force=True, dry_run=True)
    session.fleet.send(request)  # what is wrong is reported before anything is stored
    stored = store_file(session.blobs, file, quiet=session.printer.for_programs)
    operation = session.fleet.configure_group(group, stored.sha256)
    session.show(document_of(operation), operation.id)


@app.command(epilog="Example: acm group show edge")
@with_session(LEDGER, over_api=True, only_reads=True)
def show(session: Session, group: Group) -> None:
    """Print the members of a group, one per line."""
    found = session.fleet.group(group)
    if found.agents or session.printer.for_programs:
        session.show(document_of(found), "\n".join(found.agents))
    else:
        print_text(_members(found), to_stderr=True)


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


def _show_members(session: Session, group: GroupView) -> None:
    session.show(document_of(group), _members(group))


def _members(group: GroupView) -> str:
    if not group.agents:
        return f"Group {group.name} has no members."
    return f"Members of {group.name}: {', '.join(group.agents)}."
