"""acm group: which agents are addressed together."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from broker.cli.options import (
    AllowUnknownOption,
    ConfigOption,
    JsonOption,
    LedgerOption,
    open_ledger_of,
    origin_of_user,
)
from broker.cli.output import literal, print_json, say
from broker.cli.targets import check_known, resolve_target
from broker.ledger.enqueue import CommandRequest
from broker.ledger.groups import check_group_name
from broker.text import counted

__all__ = [
    "group_app",
]


group_app = typer.Typer(no_args_is_help=True, help="Groups of agents, to be addressed together.")
Group = Annotated[str, typer.Argument(help="The group's name; it exists while it has members.")]
Agents = Annotated[list[str], typer.Argument(metavar="AGENT...", help="The agents' names.")]


@group_app.command(epilog="Example: acm group add edge web-01 web-02")
def add(
    group: Group,
    agents: Agents,
    allow_unknown: AllowUnknownOption = False,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Add agents to a group."""
    with open_ledger_of(config, ledger) as opened:
        if not allow_unknown:
            check_known(opened, agents)
        opened.groups.add(group, agents)
        _say_members(group, opened.groups.members(group))


@group_app.command(epilog="Example: acm group remove edge web-02")
def remove(group: Group, agents: Agents, config: ConfigOption = None, ledger: LedgerOption = None) -> None:
    """Take agents out of a group."""
    with open_ledger_of(config, ledger) as opened:
        opened.groups.remove(group, agents)
        _say_members(group, opened.groups.members(group))


@group_app.command("list", epilog="Example: acm group list --json")
def list_groups(config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """List the groups with their members."""
    with open_ledger_of(config, ledger) as opened:
        groups = opened.groups.all()
    if as_json:
        print_json(groups)
        return
    table = Table("group", "agents", title=counted(len(groups), "group"))
    for group, agents in groups.items():
        table.add_row(literal(group), literal(", ".join(agents)))
    Console().print(table)


@group_app.command(epilog="Example: acm group configure edge sensor.toml")
def configure(
    group: Group,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration file, or a .tar.gz of several.")],
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Make a file the group's configuration and send it to its members; fetch-config sends it to one again."""
    with open_ledger_of(config, ledger) as opened:
        target = resolve_target(opened, None, group, everyone=False, allow_unknown=False)
        artifact = opened.blobs.put(file)
        opened.groups.configure(group, artifact)
        parameters = {"artifact": msgspec.to_builtins(artifact), "group": group}
        operation = opened.add_operation(
            target.agents, target.words, CommandRequest("apply-centralized-configuration", parameters, origin_of_user())
        )
    typer.echo(operation.id)


@group_app.command(epilog="Example: acm group show edge")
def show(group: Group, config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """Print the members of a group, one a line."""
    with open_ledger_of(config, ledger) as opened:
        agents = opened.groups.members(check_group_name(group))
    if as_json:
        print_json(agents)
    elif agents:
        say("\n".join(agents))
    else:
        say(f"Nobody is in {group}.", to_stderr=True)


def _say_members(group: str, agents: list[str]) -> None:
    say(f"In {group}: {', '.join(agents)}." if agents else f"Nobody is in {group}.")
