"""The fields of a form for the parameters of a command type, made from its JSON Schema, and what was filled in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.command_types import parameters_of, schema_of
from broker.contract.limits import MAX_DEPTH, MAX_FRAME_BYTES
from broker.contract.messages import JsonObject
from broker.contract.strict_json import DecodeError, parse

__all__ = [
    "PREFIX",
    "Filled",
    "ParameterField",
    "fields_for",
    "filled_in",
]


PREFIX = "p."  # of the names of these fields in the form
_KINDS = {"boolean": "flag", "integer": "integer", "number": "number", "string": "text"}
_LONG = 256  # characters, from which on a text has several lines


@dataclass(frozen=True)
class ParameterField:
    """One field. `kind` is text, long, secret, choice, flag, integer, number, lines (a list of texts) or json.

    `limits` are attributes of the input, by which a browser checks what is typed.
    """

    name: str
    kind: str
    is_required: bool
    hint: str
    default: Any = None
    choices: tuple[str, ...] = ()
    limits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Filled:
    """The parameters that a form has, and a sentence for each field whose text is none."""

    parameters: JsonObject
    problems: Mapping[str, str]


def fields_for(command_type: str) -> tuple[ParameterField, ...]:
    """Return the fields of a type; none for one that is unknown here, or has no parameters."""
    shape = parameters_of(command_type)
    schema = {} if shape is None else schema_of(shape)
    required = schema.get("required", ())
    members = schema.get("properties", {}).items()
    return tuple(_field(name, member, is_required=name in required) for name, member in members)


def filled_in(fields: tuple[ParameterField, ...], form: Mapping[str, str]) -> Filled:
    """Return the parameters of a form: those that are empty, or have their default, are left out."""
    parameters: JsonObject = {}
    problems: dict[str, str] = {}
    for it in fields:
        text = form.get(PREFIX + it.name, "")
        try:
            value = _value(it, text)
        except ValueError as error:
            problems[it.name] = str(error)
            continue
        if it.is_required or (value is not None and value != it.default):
            parameters[it.name] = value
    return Filled(parameters, problems)


def _field(name: str, member: JsonObject, *, is_required: bool) -> ParameterField:
    schema = _without_null(member)
    kind, choices = _kind(schema), tuple(str(it) for it in schema.get("enum", ()))
    limits = {
        "min": schema.get("minimum"),
        "max": schema.get("maximum"),
        "minlength": schema.get("minLength"),
        "maxlength": schema.get("maxLength"),
    }
    known = {limit: value for limit, value in limits.items() if value is not None}
    hint = schema.get("description", "")
    return ParameterField(name, kind, is_required, hint, member.get("default"), choices, known)


def _without_null(member: JsonObject) -> JsonObject:
    """Return what a member may be besides null; of several such schemas none, for which a field takes JSON."""
    others = [it for it in member.get("anyOf", ()) if it.get("type") != "null"]
    if not others:
        return member
    return others[0] if len(others) == 1 else {}


def _kind(schema: JsonObject) -> str:
    if schema.get("enum"):
        return "choice"
    if schema.get("type") == "array" and schema.get("items", {}).get("type") == "string":
        return "lines"
    kind = _KINDS.get(schema.get("type", ""), "json")
    if kind == "text" and schema.get("writeOnly"):
        return "secret"
    if kind == "text" and ("contentMediaType" in schema or schema.get("maxLength", 0) > _LONG):
        return "long"
    return kind


def _value(it: ParameterField, text: str) -> Any:
    """Return the value of a text; raises ValueError with a sentence."""
    if it.kind == "flag":
        return bool(text)
    if it.kind == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    if it.kind in ("text", "long", "secret", "choice"):
        return text.replace("\r\n", "\n") or None
    if not text.strip():
        if it.is_required:
            raise ValueError("This parameter is required.")
        return None
    return _number(it.kind, text) if it.kind in ("integer", "number") else _json(text)


def _number(kind: str, text: str) -> int | float:
    try:
        return int(text) if kind == "integer" else float(text)
    except ValueError:
        raise ValueError(f"This must be {'an integer' if kind == 'integer' else 'a number'}.") from None


def _json(text: str) -> Any:
    try:
        return parse(text.encode(), MAX_FRAME_BYTES, MAX_DEPTH)
    except DecodeError as error:
        raise ValueError(str(error)) from None
