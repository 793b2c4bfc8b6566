"""The contract as JSON Schema, made from the dataclasses.

`python -m broker.contract.schema docs/schema.json` writes it.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from broker.contract.codec import MAX_ID_LENGTH
from broker.contract.commands import COMMAND_TYPES
from broker.contract.messages import Ack, BlobChunk, BlobRequest, Command, Control, Feedback, JsonObject, Status

__all__ = ["json_schema", "main", "render"]

_MESSAGES = (Command, Control, Ack, Feedback, Status, BlobRequest, BlobChunk)
_NAME: JsonObject = {"minLength": 1, "maxLength": MAX_ID_LENGTH}
_AT_LEAST_0: JsonObject = {"minimum": 0}
_TIME: JsonObject = {"format": "date-time"}

# What the codec checks and the dataclasses' types do not say.
_LIMITS: dict[tuple[str, str], JsonObject] = {
    ("Command", "id"): _NAME,
    ("Command", "type"): _NAME,
    ("Command", "created_at"): _TIME,
    ("Command", "expires_at"): _TIME,
    ("Command", "timeout_s"): {"exclusiveMinimum": 0},
    ("Control", "command_id"): _NAME,
    ("Ack", "command_id"): _NAME,
    ("Feedback", "command_id"): _NAME,
    ("Feedback", "started_at"): _TIME,
    ("Feedback", "finished_at"): _TIME,
    ("Feedback", "expected"): {"minimum": 1},
    ("Sequence", "epoch"): _AT_LEAST_0,
    ("Sequence", "number"): {"minimum": 1},
    ("Status", "last_sequence"): _AT_LEAST_0,
    ("Status", "queue_depth"): _AT_LEAST_0,
    ("Status", "results_waiting"): _AT_LEAST_0,
    ("Status", "pending_reversal_count"): _AT_LEAST_0,
    ("Status", "updated_at"): _TIME,
    ("PendingReversal", "reverses_at"): _TIME,
}


def json_schema() -> JsonObject:
    """Return the JSON Schema (2020-12) of every message, frame and command's parameters, below `$defs`."""
    definitions = _definitions()
    for (message, member), limits in _LIMITS.items():
        definitions[message]["properties"][member].update(limits)
    for kind in COMMAND_TYPES.values():
        definitions[kind.parameters.__name__]["additionalProperties"] = False
    definitions["Command"]["allOf"] = [_parameters_of(name, kind.parameters) for name, kind in COMMAND_TYPES.items()]
    definitions |= {f"{kind.__name__}Frame": _frame(kind) for kind in _MESSAGES if kind is not Status}
    definitions["StatusFrame"] = _reference(Status)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Agent command manager: messages on MQTT",
        "description": (
            "The payload on `{prefix}/{agent}/<channel>` is the frame named after the channel. "
            "On `command` the older forms A to F are taken too; they are not described here."
        ),
        "$defs": dict(sorted(definitions.items())),
    }


def render() -> str:
    """Return the schema as the text of docs/schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the schema to the one path given; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m broker.contract.schema PATH\n")
        return 2
    Path(arguments[0]).write_text(render(), encoding="utf-8")
    return 0


def _definitions() -> dict[str, Any]:
    shapes = [shape for kind in COMMAND_TYPES.values() for shape in (kind.parameters, kind.data)]
    _, definitions = msgspec.json.schema_components([*_MESSAGES, *shapes], ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return definitions


def _reference(kind: type) -> JsonObject:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _frame(kind: type) -> JsonObject:
    return {"oneOf": [_reference(kind), {"type": "array", "items": _reference(kind)}]}


def _parameters_of(command_type: str, shape: type) -> JsonObject:
    """Bind one type to its parameters; a seed form is exempt, for it brings wrapper keys along."""
    ours = {"properties": {"type": {"const": command_type}}, "not": {"required": ["original"]}}
    return {"if": ours, "then": {"properties": {"parameters": _reference(shape)}}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
