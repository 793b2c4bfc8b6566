"""What an operator sees, as documents for programs: the same JSON as that of the API."""

from typing import Any

import msgspec

from broker.contract.messages import JsonObject

__all__ = [
    "document_of",
]


def document_of(view: Any) -> JsonObject:
    """Return a shape of `broker.fleet.models` as JSON: times as in RFC 3339, durations in seconds."""
    document: JsonObject = msgspec.to_builtins(view)
    return document
