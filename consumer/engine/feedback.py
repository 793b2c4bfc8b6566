"""Makes the agent's feedback: fills in the sender, and computes the digest of each result."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from datetime import datetime
from typing import Any, cast

import msgspec

from broker.contract.codec import MAX_FRAME_BYTES, data_fits, encode, to_json
from broker.contract.commands import mask_secret_parameters
from broker.contract.limits import truncated
from broker.contract.messages import Command, Feedback, JsonObject, SequenceNumber
from broker.contract.states import FeedbackKind, Outcome, State
from consumer.handler import Result
from consumer.ports import EncodedFeedback, StoredCommand

__all__ = [
    "FeedbackFactory",
]


_MAX_RESULT_BYTES = MAX_FRAME_BYTES - 128  # the digest is added afterwards


def _json_object(data: Any) -> JsonObject | None:
    """Return a handler's data as the JSON object on the wire; members that are None are left out."""
    if not is_dataclass(data) or isinstance(data, type):
        return cast(JsonObject | None, data)
    members: JsonObject = msgspec.to_builtins(data)
    return {name: value for name, value in members.items() if value is not None}


def _fitted(result: Feedback) -> tuple[Feedback, bytes]:
    """Drop the echo, then the output, then the data, until a frame can carry the result; return it encoded too."""
    if result.data is not None and not data_fits(result.data):
        result = _without("data", result)
    encoded = encode([result])
    for part in ("command", "output", "data"):
        if len(encoded) <= _MAX_RESULT_BYTES:
            break
        if getattr(result, part) is not None:
            result = _without(part, result)
            encoded = encode([result])
    return result, encoded


def _without(part: str, result: Feedback) -> Feedback:
    note = f"{part} was left out: the result would not fit into one message"
    left_out: dict[str, Any] = {part: None}
    return replace(result, **left_out, notes=(*result.notes, note))


def _cut(result: Feedback) -> Feedback:
    """Return the result with message and output truncated to the lengths that the server accepts."""
    cut, output = truncated(result), result.output
    shown = truncated(output) if output is not None else None
    return cut if output is shown or shown is None else replace(cut, output=replace(shown, truncated=True))


# design.md: "A result is encoded once."
def _sealed(result: Feedback) -> EncodedFeedback:
    """Return the result with its digest as the last member: the bytes before it are those that were hashed."""
    fitting, encoded = _fitted(_cut(result))
    digest = hashlib.sha256(encoded).hexdigest()
    return EncodedFeedback(replace(fitting, digest=digest), encoded[:-1] + f',"digest":"{digest}"}}'.encode())


@dataclass(frozen=True)
class FeedbackFactory:
    """Makes the feedback of one incarnation of one agent with one command store.

    `accepts_unsigned` is True if the agent accepts unsigned commands, else None; it is in all of its feedback.
    """

    agent: str
    incarnation: str
    store_generation: str
    shapes: Mapping[str, type] = field(default_factory=dict)
    """The dataclasses of parameters by command type, for types that are not in the contract."""
    accepts_unsigned: bool | None = None

    def _echo(self, command: Command, state: State) -> JsonObject:
        received = command.original or to_json(command)
        echo: JsonObject = mask_secret_parameters(command, received, self.shapes.get(command.type))
        return {**echo, "status": str(state)}

    def _encoded(self, kind: FeedbackKind, status: str, message: str, **rest: Any) -> EncodedFeedback:
        feedback = self._feedback(kind, status, message, **rest)
        return EncodedFeedback(feedback, encode([feedback]))

    def _feedback(self, kind: FeedbackKind, status: str, message: str, **rest: Any) -> Feedback:
        return Feedback(
            kind,
            self.agent,
            self.store_generation,
            self.incarnation,
            status,
            message,
            accepts_unsigned=self.accepts_unsigned,
            **rest,
        )

    def accepted(self, command: Command, state: State = State.PENDING) -> EncodedFeedback:
        """Return the notice that the command is stored; send it only after the commit."""
        return self._encoded(
            FeedbackKind.ACCEPTED,
            str(state),
            "The command is stored.",
            command_id=command.id,
            sequence=command.sequence,
            notes=command.notes,
        )

    def progress(self, command: Command) -> EncodedFeedback:
        """Return the notice that the command is running."""
        return self._encoded(FeedbackKind.PROGRESS, str(State.PROCESSING), "The command runs.", command_id=command.id)

    def gap(self, sequence: SequenceNumber, expected: int) -> EncodedFeedback:
        """Return the notice that numbers before `sequence` are missing; `expected` is the next one of that epoch."""
        message = f"Sequence number {sequence.number} arrived, but {expected} must come first; send again from there."
        return self._encoded(FeedbackKind.GAP, str(State.PENDING), message, sequence=sequence, expected=expected)

    def result(
        self, command: Command, result: Result, finished_at: datetime, started_at: datetime | None = None
    ) -> EncodedFeedback:
        """Return the command's one final result, with its digest, from what a handler returned."""
        return _sealed(
            self._feedback(
                FeedbackKind.RESULT,
                "completed",
                result.message,
                command_id=command.id,
                command=self._echo(command, State.PROCESSING),
                sequence=command.sequence,
                outcome=Outcome.ERROR if result.code else Outcome.SUCCESS,
                code=result.code,
                data=_json_object(result.data),
                output=result.output,
                started_at=started_at,
                finished_at=finished_at,
                notes=command.notes,
            )
        )

    def state_of(self, stored: StoredCommand) -> EncodedFeedback:
        """Return the answer to a repeated command: its result if it has one, otherwise the notice that it is stored."""
        return stored.result or self.accepted(stored.command, stored.state)
