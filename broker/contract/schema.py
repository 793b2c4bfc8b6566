"""The JSON Schema of the messages (docs/schema.json), generated from the dataclasses and the table of limits."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from broker.contract.commands import COMMAND_TYPES
from broker.contract.limits import (
    CHANNEL_OF,
    LIMITS,
    LISTS,
    MAX_ID_LENGTH,
    MAX_NUMBER,
    MAX_REVERSALS,
    MAX_TIMEOUT_S,
    NAMES,
    TEXTS,
    ListLimits,
)
from broker.contract.messages import Ack, BlobChunk, BlobRequest, Command, Control, Feedback, JsonObject, Status

__all__ = [
    "json_schema",
    "render",
]


_MESSAGES = (Command, Control, Ack, Feedback, Status, BlobRequest, BlobChunk)
_NAME: JsonObject = {"minLength": 1, "maxLength": MAX_ID_LENGTH}
_COUNT: JsonObject = {"minimum": 0, "maximum": MAX_NUMBER}
_POSITIVE: JsonObject = {"minimum": 1, "maximum": MAX_NUMBER}
_TIME: JsonObject = {"format": "date-time"}
# What the codec checks in addition to the types of the dataclasses and the table of limits.
_CHECKED: dict[tuple[str, str], JsonObject] = {
    ("Command", "created_at"): _TIME,
    ("Command", "expires_at"): _TIME,
    ("Command", "timeout_s"): {"exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
    ("Feedback", "started_at"): _TIME,
    ("Feedback", "finished_at"): _TIME,
    ("Feedback", "expected"): _POSITIVE,
    ("SequenceNumber", "epoch"): _COUNT,
    ("SequenceNumber", "number"): _POSITIVE,
    ("Status", "epoch"): _COUNT,
    ("Status", "closed_epoch"): _COUNT,
    ("Status", "last_sequence"): _COUNT,
    ("Status", "queue_depth"): _COUNT,
    ("Status", "results_waiting"): _COUNT,
    ("Status", "pending_reversal_count"): _COUNT,
    ("Status", "pending_reversals"): {"maxItems": MAX_REVERSALS},
    ("Status", "updated_at"): _TIME,
    ("PendingReversal", "reverses_at"): _TIME,
}


def json_schema() -> JsonObject:
    """Return the JSON Schema (2020-12) of each message, frame, and command type's parameters and data, in `$defs`."""
    definitions = _definitions()
    for message, member, limits in _limits():
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
            "Foreign forms of commands, A to F, are also accepted on `command`; they are not described here."
        ),
        "$defs": dict(sorted(definitions.items())),
    }


def render() -> str:
    """Return the schema as text, the content of docs/schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _definitions() -> dict[str, Any]:
    shapes = [shape for kind in COMMAND_TYPES.values() for shape in (kind.parameters, kind.data)]
    _, definitions = msgspec.json.schema_components([*_MESSAGES, *shapes], ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return definitions


def _limits() -> Iterator[tuple[str, str, JsonObject]]:
    """Yield each constraint: the message, the member, and the keywords."""
    yield from ((message, member, limits) for (message, member), limits in _CHECKED.items())
    for kind, names in NAMES.items():
        yield from ((kind.__name__, name, _NAME) for name in names)
    for kind, texts in TEXTS.items():
        yield from ((kind.__name__, name, {"maxLength": limit}) for name, limit in texts.items())
    for kind, lists in LISTS.items():
        yield from ((kind.__name__, name, _of_list(limits)) for name, limits in lists.items())


def _of_list(limits: ListLimits) -> JsonObject:
    """Return the limits of an array of texts or of an object's keys; keywords for the other type have no effect."""
    texts = {"maxLength": limits.characters}
    return {"maxItems": limits.items, "maxProperties": limits.items, "propertyNames": texts, "items": texts}


def _reference(kind: type) -> JsonObject:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _frame(kind: type) -> JsonObject:
    limit = LIMITS[CHANNEL_OF[kind]].messages
    return {"oneOf": [_reference(kind), {"type": "array", "items": _reference(kind), "maxItems": limit}]}


def _parameters_of(command_type: str, shape: type) -> JsonObject:
    """Tie a command type to its parameters, except in a foreign form, which has additional keys beside them."""
    ours = {"properties": {"type": {"const": command_type}}, "not": {"required": ["original"]}}
    return {"if": ours, "then": {"properties": {"parameters": _reference(shape)}}}
