"""Examples of a command type's parameters, as words of `acm send`, made from their JSON Schemas."""

import json
import shlex
from typing import Any

import msgspec

from broker.contract.artifacts import Artifact
from broker.contract.messages import JsonObject

__all__ = [
    "parameter_examples",
]


_ARTIFACT = Artifact.__name__
_SIMPLE: dict[str | None, Any] = {"boolean": True, "string": "TEXT", "null": None, None: "TEXT"}


def parameter_examples(shape: type) -> dict[str, str]:
    """Return an example for each member of a dataclass, by its name, quoted for a shell; texts are `TEXT`."""
    _, definitions = msgspec.json.schema_components([shape])
    return {
        name: _word(name, schema, definitions) for name, schema in definitions[shape.__name__]["properties"].items()
    }


def _word(name: str, schema: JsonObject, definitions: JsonObject) -> str:
    schema = _first(schema)
    if schema.get("$ref", "").endswith(f"/{_ARTIFACT}"):
        return f"--file {name}=FILE"
    value = _value(schema, definitions)
    return shlex.quote(f"{name}={value if isinstance(value, str) else json.dumps(value)}")


def _first(schema: JsonObject) -> JsonObject:
    """Return the schema, or the first of its alternatives that is not null."""
    parts = (part for part in schema.get("anyOf", ()) if part.get("type") != "null")
    return next(parts, schema)


def _value(schema: JsonObject, definitions: JsonObject) -> Any:
    schema = _first(schema)
    if "$ref" in schema:
        return _value(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return max(1, schema.get("minimum", 1))
    if kind == "array":
        return [_value(schema.get("items", {}), definitions)]
    if kind == "object":
        members: JsonObject = schema.get("properties", {"key": {}})
        required = schema.get("required", list(members))
        return {name: _value(member, definitions) for name, member in members.items() if name in required}
    return _SIMPLE.get(kind, "TEXT")
