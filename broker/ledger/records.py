"""Rows of the ledger's tables as typed values: one record per row, with the columns as its fields, in their order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

__all__ = [
    "AgentRecord",
    "AuditRecord",
    "BlobRecord",
    "CommandRecord",
    "OperationRecord",
    "read_all",
    "read_one",
]

_T = TypeVar("_T")


@dataclass(frozen=True)
class AgentRecord:
    """A row of AGENTS. Times are in seconds since 1970 (UTC).

    `past_incarnations` is JSON: the last ones before `incarnation`. One that came back was another client of this name,
    last at `name_conflict_at`. A forgotten agent is not listed until it is enrolled, sent a command or online again.
    `request` is the id of a request to report that it has not answered. `silent_at` is when the server noted that an
    online agent has become silent; None once it has spoken again.
    """

    name: str
    epoch: int
    next_number: int
    store_generation: str | None
    incarnation: str | None
    online: bool
    status: str | None
    seen_at: float | None
    resend_at: float | None
    attempts: int
    past_incarnations: str | None
    name_conflict_at: float | None
    forgotten_at: float | None
    request: str | None
    silent_at: float | None


@dataclass(frozen=True)
class CommandRecord:
    """A row of COMMANDS. Times are in seconds since 1970 (UTC).

    `body_check` is the check of an open command's body; earlier versions wrote none. `verdict` is the server's own
    result, if the agent's replaced it later. `sent_at` is when it was first claimed, `stored_at` and `running_at` are
    when it was recorded that its agent has it and has begun it; None if the agent had its result first. `type` repeats
    the command's type, to be looked for. `trace` is the context that it was created in, as text, if that is recorded.
    """

    id: str
    agent: str
    epoch: int
    number: int
    body: str
    state: str
    to_send: bool
    cancel: str
    created_at: float
    completed_at: float | None
    digest: str | None
    result: str | None
    outcome: str | None
    operation_id: str | None
    body_check: str | None
    verdict: str | None
    expires_at: float | None
    sent_at: float | None
    stored_at: float | None
    running_at: float | None
    type: str | None
    trace: str | None


@dataclass(frozen=True)
class OperationRecord:
    """A row of OPERATIONS."""

    id: str
    type: str
    target: str
    size: int
    created_at: float


@dataclass(frozen=True)
class AuditRecord:
    """A row of AUDITS. `verified_at` is in seconds since 1970 (UTC)."""

    agent: str
    number: int
    hash: str
    verified_at: float
    accepted_number: int | None
    accepted_hash: str | None


@dataclass(frozen=True)
class BlobRecord:
    """A row of BLOBS; without `sha256` it is being stored or removed."""

    id: str
    sha256: str | None
    size: int
    file_name: str
    added_at: float


def read_all(
    connection: sa.Connection,
    query: sa.Select[Any],
    record: Callable[..., _T],
    parameters: Mapping[str, Any] | None = None,
) -> list[_T]:
    """Return the rows that a query of whole rows selects, as records."""
    return [record(*row) for row in connection.execute(query, parameters).all()]


def read_one(connection: sa.Connection, query: sa.Select[Any], record: Callable[..., _T]) -> _T | None:
    """Return the row that a query of whole rows selects, or None if there is none."""
    row = connection.execute(query).one_or_none()
    return None if row is None else record(*row)
