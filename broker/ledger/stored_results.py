"""Results as the ledger stores them: without what their row has already, which is more than half of most results.

The largest part is the command, which an agent repeats in its result and the row has as `body`.
"""

from dataclasses import fields
from typing import Protocol

import msgspec

from broker.contract.messages import Feedback, JsonObject, wire_members
from broker.contract.states import FeedbackKind, Outcome
from broker.ledger.damage import decoded
from broker.ledger.outcomes import SERVER
from broker.ledger.records import CommandRecord

__all__ = [
    "CommandColumns",
    "readable_result",
    "readable_verdict",
    "stored_result",
]


_MEMBERS = tuple(field.name for field in fields(Feedback))


class CommandColumns(Protocol):
    """The columns of a command's row that its result repeats."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def agent(self) -> str:
        """The name of its agent."""

    @property
    def operation_id(self) -> str | None:
        """Its operation, if it is part of one."""

    @property
    def epoch(self) -> int:
        """The epoch of its number."""

    @property
    def number(self) -> int:
        """Its number in that epoch."""

    @property
    def body(self) -> str:
        """The command without its number, as JSON."""


def stored_result(result: Feedback, row: CommandColumns) -> str:
    """Return the result of a command as its row stores it, beside the columns `digest` and `outcome`.

    A member that the result lacks although the row implies it is null.
    """
    members = wire_members(result)
    if result.sequence is not None:
        members["sequence"] = vars(result.sequence)
    for name, value in _implied(row, result.outcome, result.digest).items():
        if members.get(name) == value:
            members.pop(name, None)
        else:
            members.setdefault(name, None)
    return msgspec.json.encode(members).decode()


def readable_result(record: CommandRecord) -> JsonObject | None:
    """Return the result in a row of COMMANDS; one that is damaged is replaced by what other columns have of it."""
    if record.result is None:
        return None
    message = "The result was damaged in the ledger; only its outcome is known."
    damaged = {"outcome": record.outcome or Outcome.ERROR, "message": message}
    return _whole(record.result, record, record.outcome, record.digest) or damaged


def readable_verdict(record: CommandRecord) -> JsonObject | None:
    """Return the server's own result in a row of COMMANDS, or None if there is none or it is damaged."""
    return _whole(record.verdict, record, Outcome.ERROR, SERVER)


def _whole(text: str | None, row: CommandColumns, outcome: str | None, digest: str | None) -> JsonObject | None:
    """Return a result with the members that were left out; earlier versions left out none."""
    stored = decoded(text, dict)
    if not stored or "kind" in stored:
        return stored
    whole = {**_implied(row, outcome, digest), **stored}
    return {name: whole[name] for name in _MEMBERS if whole.get(name) is not None}


def _implied(row: CommandColumns, outcome: str | None, digest: str | None) -> JsonObject:
    """Return the members that a result has by the columns of its command's row."""
    sequence = {"epoch": row.epoch, "number": row.number}
    command = decoded(row.body, dict)
    return {
        "kind": FeedbackKind.RESULT.value,
        "agent": row.agent,
        "status": "completed",
        "command_id": row.id,
        "command": command and {**command, "sequence": sequence},
        "sequence": sequence,
        "outcome": outcome,
        "digest": digest,
    }
