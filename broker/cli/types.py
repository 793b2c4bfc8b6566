"""acm types: the command types, with their parameters and the data of their results."""

import inspect
from collections.abc import Iterator
from dataclasses import fields

import msgspec
import typer
from rich.console import Group
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from broker.cli.options import JsonOption
from broker.cli.output import print_result, print_text
from broker.command_types import known_command_types, schema_of
from broker.contract.commands import CommandType
from broker.contract.messages import JsonObject

__all__ = [
    "app",
    "describe_members",
    "summary_of",
    "type_json",
]


app = typer.Typer()


@app.command(epilog="Example: acm types --json")
def types(as_json: JsonOption = False) -> None:
    """List command types with their parameters and result data."""
    known, warnings = known_command_types()
    for warning in warnings:
        print_text(f"acm: {warning}", to_stderr=True)
    view = Group(*(_view(name, kind) for name, kind in known.items()))
    print_result([type_json(name, kind) for name, kind in known.items()], view, as_json=as_json)


def _view(name: str, kind: CommandType) -> Group:
    table = Table(box=None, padding=(0, 2), show_header=False)
    for member, kind_text, default in describe_members(kind.parameters):
        table.add_row(Text("parameter", "dim"), Text(member, "bold"), Text(kind_text), Text(default, "dim"))
    for member, kind_text, _ in describe_members(kind.data):
        table.add_row(Text("data", "dim"), Text(member, "bold"), Text(kind_text))
    return Group(Rule(Text(name, "bold"), align="left"), Text(summary_of(kind)), table, Text(""))


def summary_of(kind: CommandType) -> str:
    """Return the first paragraph of the docstring of a type's parameters, on one line."""
    text = inspect.cleandoc(kind.parameters.__doc__ or "")
    return text.split("\n\n")[0].replace("\n", " ")


def type_json(name: str, kind: CommandType) -> JsonObject:
    """Return a type with its parameters and its result's data as JSON Schemas, which refer to `definitions`."""
    shapes = [kind.parameters, kind.data]
    (parameters, data), definitions = msgspec.json.schema_components(shapes, ref_template="#/definitions/{name}")
    return {
        "type": name,
        "summary": summary_of(kind),
        "parameters": definitions.pop(kind.parameters.__name__, parameters),
        "data": definitions.pop(kind.data.__name__, data),
        "definitions": definitions,
    }


def describe_members(shape: type) -> Iterator[tuple[str, str, str]]:
    """Yield the name, type and default (or `required`) of each member of a dataclass."""
    schema = schema_of(shape)
    for member in fields(shape):
        yield member.name, _type_text(schema["properties"][member.name]), _default(schema, member.name)


def _default(schema: JsonObject, name: str) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = schema["properties"][name].get("default")
    return "" if default is None else msgspec.json.encode(default).decode()


def _type_text(schema: JsonObject) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type_text(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type_text(schema.get('items', {}))}"
    return {"string": "text", "object": "JSON object", None: "any"}.get(schema.get("type"), str(schema.get("type")))
