"""The command types of this installation: the built-in ones, and those of installed packages (entry points)."""

import contextlib
from dataclasses import is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import msgspec

from broker.contract.commands import COMMAND_TYPES, CommandType
from broker.contract.messages import JsonObject

__all__ = [
    "known_command_types",
    "parameters_of",
    "schema_of",
    "text_parameters",
]


_ENTRY_POINT_GROUP = "agent_command_manager.command_types"


def known_command_types() -> tuple[dict[str, CommandType], list[str]]:
    """Return the command types by name, and a sentence for each entry point that could not be loaded."""
    types, warnings = dict(COMMAND_TYPES), []
    for entry in sorted(entry_points(group=_ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            if entry.name in types:
                raise TypeError("a type of this name exists already")
            types[entry.name] = _load(entry)
        except (Exception, SystemExit) as error:  # what a foreign package may raise is unknown
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.append(f"The command type {entry.name!r} ({entry.value}) cannot be loaded: {reason}.")
    return dict(sorted(types.items())), warnings


@lru_cache(maxsize=256)
def parameters_of(command_type: str) -> type | None:
    """Return the dataclass of a type's parameters, or None if the type is unknown here or cannot be loaded."""
    for entry in entry_points(group=_ENTRY_POINT_GROUP, name=command_type):
        with contextlib.suppress(Exception, SystemExit):  # what a foreign package may raise is unknown
            return _load(entry).parameters
    kind = COMMAND_TYPES.get(command_type)
    return kind.parameters if kind else None


def text_parameters(shape: type) -> frozenset[str]:
    """Return the names of a dataclass's members that are texts, so that `content=42` means the text 42."""
    return frozenset(name for name, schema in schema_of(shape)["properties"].items() if _is_text(schema))


def _is_text(schema: JsonObject) -> bool:
    if "anyOf" in schema:
        return all(_is_text(part) for part in schema["anyOf"] if part.get("type") != "null")
    return schema.get("type") == "string" or all(isinstance(it, str) for it in schema.get("enum", (0,)))


def schema_of(shape: type) -> JsonObject:
    """Return the JSON Schema of one dataclass."""
    _, definitions = msgspec.json.schema_components([shape])
    schema: JsonObject = definitions[shape.__name__]
    return schema


def _load(entry: EntryPoint) -> CommandType:
    kind = entry.load()
    if not isinstance(kind, CommandType):
        raise TypeError("it is not a CommandType")
    for shape in (kind.parameters, kind.data):
        if not is_dataclass(shape):
            raise TypeError("its parameters and its data must be dataclasses")
        schema_of(shape)
    return kind
