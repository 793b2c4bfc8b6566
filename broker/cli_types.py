"""acm types: the command types, with their parameters and what their results hold."""

from rich.console import Console, Group
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from broker.cli_common import JsonOption, print_json, say
from broker.contract.commands import CommandType
from broker.types_catalogue import known_command_types, members_in_words, summary_of, type_json

__all__ = ["types"]


def types(as_json: JsonOption = False) -> None:
    """List the command types with their parameters and their results' data."""
    known, warnings = known_command_types()
    for warning in warnings:
        say(f"acm: {warning}", to_stderr=True)
    if as_json:
        print_json([type_json(name, kind) for name, kind in known.items()])
        return
    console = Console()
    for name, kind in known.items():
        console.print(_view(name, kind))


def _view(name: str, kind: CommandType) -> Group:
    table = Table(box=None, padding=(0, 2), show_header=False)
    for member, words, default in members_in_words(kind.parameters):
        table.add_row(Text("parameter", "dim"), Text(member, "bold"), Text(words), Text(default, "dim"))
    for member, words, _ in members_in_words(kind.data):
        table.add_row(Text("data", "dim"), Text(member, "bold"), Text(words))
    return Group(Rule(Text(name, "bold"), align="left"), Text(summary_of(kind)), table, Text(""))
