"""JSON Schemas of values in words: of what type one must be, and what is wrong with one that was refused."""

import re
from typing import Any

import msgspec

from broker.contract.messages import JsonObject

__all__ = [
    "plain_type",
    "wrong_value",
]


_PLACE = re.compile(r"(?P<what>.*) - at `\$\.(?P<path>[^`]*)`", re.DOTALL)
_ITEM = re.compile(r"(?P<name>\w+)\[(?P<index>[0-9]+)\]")
_NAMES = {"string": "text", "object": "JSON object", None: "any"}


def plain_type(schema: JsonObject) -> str:
    """Return the type that a schema describes, such as `number from 0 to 86400`."""
    return _name(schema) + _limits(schema)


def wrong_value(error: msgspec.ValidationError, given: JsonObject, shape: type) -> str:
    """Return what is wrong with the members that a dataclass was not made of, as a clause without its full stop.

    A text is not repeated: it may be secret.
    """
    found = _PLACE.fullmatch(str(error))
    if found is None:
        return str(error)
    path, (name, index) = found["path"], _member_at(found["path"])
    _, definitions = msgspec.json.schema_components([shape])
    schema, value = definitions[shape.__name__]["properties"].get(name), given.get(name)
    if schema is not None and index is not None:
        schema, value = _first(schema).get("items"), value[index] if isinstance(value, list) else None
    if schema is None:  # within an object
        return f"{path}: {found['what'][:1].lower()}{found['what'][1:]}"
    one = _first(schema)
    if "pattern" in one and "description" in one and isinstance(value, str):
        return f"{path} must be {one['description'][:1].lower()}{one['description'][1:].rstrip('.')}"
    return f"{path} must be {_with_article(plain_type(schema))}, not {_shown(value)}"


def _member_at(path: str) -> tuple[str, int | None]:
    """Return the member that a path names, and which of its items, if it is a list."""
    item = _ITEM.fullmatch(path)
    return (item["name"], int(item["index"])) if item else (path, None)


def _first(schema: JsonObject) -> JsonObject:
    """Return the schema, or the first of its alternatives that is not null."""
    return next((it for it in schema.get("anyOf", ()) if it.get("type") != "null"), schema)


def _with_article(name: str) -> str:
    if name.startswith(("text", "any")) or " | " in name:
        return name
    return f"an {name}" if name[0] in "aeioAEIO" else f"a {name}"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict | list):
        return "a JSON object" if isinstance(value, dict) else "a list"
    return msgspec.json.encode(value).decode()


def _limits(schema: JsonObject) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:.12g} to {high:.12g}"
    return f" of at least {low:.12g}" if low is not None else ""


def _name(schema: JsonObject) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(plain_type(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {plain_type(schema.get('items', {}))}"
    return _NAMES.get(schema.get("type"), str(schema.get("type")))
