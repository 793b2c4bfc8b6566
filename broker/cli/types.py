"""acm types: the command types, with their parameters and the data of their results."""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, NamedTuple

import msgspec
import typer

from broker.cli.completions import complete_types
from broker.cli.type_examples import parameter_examples
from broker.command_types import known_command_types, schema_of
from broker.console.listing import Column, Listing, Shown
from broker.console.output import Printer, print_text
from broker.console.output_options import with_printer
from broker.contract.commands import CommandType
from broker.contract.messages import JsonObject
from broker.contract.plain_types import plain_type
from broker.errors import InvalidArgument
from broker.suggestions import did_you_mean

__all__ = [
    "app",
    "describe_members",
    "summary_of",
    "type_json",
]


app = typer.Typer()


class _NamedType(NamedTuple):
    name: str
    kind: CommandType


_TYPES = Listing[_NamedType](
    "command type",
    (
        Column("type", lambda it: it.name),
        Column("summary", lambda it: summary_of(it.kind)),
        Column("parameters", lambda it: [member.name for member in fields(it.kind.parameters)], Shown.WIDE),
    ),
    name=lambda it: it.name,
    document=lambda it: type_json(it.name, it.kind),
)


@app.command(epilog="Example: acm types restart-agent")
@with_printer(_TYPES)
def types(
    printer: Printer,
    name: Annotated[
        str | None,
        typer.Argument(metavar="TYPE", autocompletion=complete_types, help="Explain this type and its parameters."),
    ] = None,
) -> None:
    """List command types, or explain one: its parameters, with examples, and the data of its result."""
    known, warnings = known_command_types()
    for warning in warnings:
        print_text(f"acm: {warning}", to_stderr=True)
    if name is None:
        printer.show_list(_TYPES, lambda: [_NamedType(*it) for it in known.items()])
        return
    if name not in known:
        raise InvalidArgument(
            f"Unknown command type {name[:80]!r}; `acm types` lists them.{did_you_mean(name, known)}",
            code="unknown_type",
        )
    printer.show([type_json(name, known[name])], "\n".join(_explained(name, known[name])))


def _explained(name: str, kind: CommandType) -> Iterator[str]:
    yield f"{name}\n"
    yield inspect.cleandoc(kind.parameters.__doc__ or "") + "\n"
    parameters = list(describe_members(kind.parameters))
    examples = parameter_examples(kind.parameters)
    yield "Parameters:" if parameters else "It has no parameters."
    for member, kind_text, default in parameters:
        known = f"default {default}" if default not in ("", "required") else default or "optional"
        yield f"  {member}: {kind_text}, {known}; as in {examples[member]}"
    yield f"\nData of the result:\n{inspect.cleandoc(kind.data.__doc__ or '')}\n"
    for member, kind_text, _ in describe_members(kind.data):
        yield f"  {member}: {kind_text}"
    required = [examples[member] for member, _, default in parameters if default == "required"]
    if not required and hasattr(kind.parameters, "__post_init__"):  # it requires one of several
        required = list(examples.values())[:1]
    yield "\nExample: " + " ".join(["acm send web-01", name, *required])


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
        yield member.name, plain_type(schema["properties"][member.name]), _default(schema, member.name)


def _default(schema: JsonObject, name: str) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = schema["properties"][name].get("default")
    return "" if default is None else msgspec.json.encode(default).decode()
