"""What an operator sees, as documents for programs: the same JSON as that of the API."""

from collections.abc import Sequence
from typing import Any

import msgspec

from broker.contract.messages import JsonObject, RunningProgress
from broker.fleet.models import CommandView, OperationProgress

__all__ = [
    "document_of",
    "document_of_agent",
    "document_of_commands",
]


def document_of(view: Any) -> JsonObject:
    """Return a shape of `broker.fleet.models` as JSON: times as in RFC 3339, durations in seconds."""
    document: JsonObject = msgspec.to_builtins(view)
    return document


def document_of_commands(commands: Sequence[CommandView], progress: OperationProgress | None = None) -> JsonObject:
    """Return what was sent: one shape for a single command, which belongs to no operation, and for an operation's."""
    counts = progress.counts if progress else {str(it.outcome or it.state): 1 for it in commands}
    return {
        "operation": document_of(progress.operation) if progress else None,
        "counts": counts,
        "commands": [document_of(it) for it in commands],
    }


def document_of_agent(last_error: str | None = None, progress: RunningProgress | None = None) -> JsonObject:
    """Return what `acm show` has of the agent of an open command besides."""
    return {"agent_last_error": last_error, "running_progress": document_of(progress) if progress else None}
