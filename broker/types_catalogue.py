"""The command types that this installation knows: the built-in ones, and those of packages installed beside it."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import msgspec

from broker.contract.commands import COMMAND_TYPES, CommandType
from broker.contract.messages import JsonObject

__all__ = ["COMMAND_TYPES_GROUP", "known_command_types", "members_in_words", "parameters_of", "summary_of", "type_json"]

COMMAND_TYPES_GROUP = "agent_command_manager.command_types"


def known_command_types() -> tuple[dict[str, CommandType], list[str]]:
    """Return the command types by name, and one sentence for each entry point that could not be used."""
    types, warnings = dict(COMMAND_TYPES), []
    for entry in sorted(entry_points(group=COMMAND_TYPES_GROUP), key=lambda entry: entry.name):
        try:
            if entry.name in types:
                raise TypeError("there is a type of this name")
            types[entry.name] = _load(entry)
        except (Exception, SystemExit) as error:  # what a foreign package may raise is unknown
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.append(f"The command type {entry.name!r} ({entry.value}) cannot be loaded: {reason}.")
    return dict(sorted(types.items())), warnings


@lru_cache(maxsize=256)
def parameters_of(command_type: str) -> type | None:
    """Return the dataclass of a type's parameters, or None for a type that is not known here or cannot be loaded."""
    for entry in entry_points(group=COMMAND_TYPES_GROUP, name=command_type):
        with contextlib.suppress(Exception, SystemExit):  # what a foreign package may raise is unknown
            return _load(entry).parameters
    kind = COMMAND_TYPES.get(command_type)
    return kind.parameters if kind else None


def summary_of(kind: CommandType) -> str:
    """Return the first sentence about a type, from its parameters' docstring."""
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


def members_in_words(shape: type) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and default of each member of a dataclass; the default of a required one is 'required'."""
    schema = _schema_of(shape)
    for member in fields(shape):
        yield member.name, _words(schema["properties"][member.name]), _default(schema, member.name)


def _schema_of(shape: type) -> JsonObject:
    """Return the JSON Schema of one dataclass."""
    _, definitions = msgspec.json.schema_components([shape])
    schema: JsonObject = definitions[shape.__name__]
    return schema


def _load(entry: EntryPoint) -> CommandType:
    kind = entry.load()
    if not isinstance(kind, CommandType):
        raise TypeError("it is no CommandType")
    for shape in (kind.parameters, kind.data):
        if not is_dataclass(shape):
            raise TypeError("its parameters and its data must be dataclasses")
        _schema_of(shape)
    return kind


def _default(schema: JsonObject, name: str) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = schema["properties"][name].get("default")
    return "" if default is None else msgspec.json.encode(default).decode()


def _words(schema: JsonObject) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_words(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " | ".join(str(word) for word in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_words(schema.get('items', {}))}"
    return {"string": "text", "object": "JSON object", None: "any"}.get(schema.get("type"), str(schema.get("type")))
