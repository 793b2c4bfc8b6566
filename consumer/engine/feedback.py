"""Makes the agent's feedback: one place that fills in who speaks and computes the digest of a result."""

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


_MAX_RESULT_BYTES = MAX_FRAME_BYTES - 128  # the digest is still to come


def _json_object(data: Any) -> JsonObject | None:
    """Return what a handler gave as data as the JSON object on the wire; members that are None are absent."""
    if not is_dataclass(data) or isinstance(data, type):
        return cast(JsonObject | None, data)
    members: JsonObject = msgspec.to_builtins(data)
    return {name: value for name, value in members.items() if value is not None}


def _that_fits(result: Feedback) -> tuple[Feedback, bytes]:
    """Leave out the echo, then the output, then the data, until a frame can carry the result; return it encoded too."""
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
    note = f"{part} was left out: the result would not have fitted into one message"
    left_out: dict[str, Any] = {part: None}
    return replace(result, **left_out, notes=(*result.notes, note))


def _cut(result: Feedback) -> Feedback:
    """Return the result with its message and its output no longer than the server takes."""
    cut, output = truncated(result), result.output
    shown = truncated(output) if output is not None else None
    return cut if output is shown or shown is None else replace(cut, output=replace(shown, truncated=True))


def _sealed(result: Feedback) -> EncodedFeedback:
    """Return the result with its digest as the last member, so that the bytes that were hashed are those that stay."""
    fitting, encoded = _that_fits(_cut(result))
    digest = hashlib.sha256(encoded).hexdigest()
    return EncodedFeedback(replace(fitting, digest=digest), encoded[:-1] + f',"digest":"{digest}"}}'.encode())


@dataclass(frozen=True)
class FeedbackFactory:
    """Speaks for one incarnation of one agent with one command store.

    `accepts_unsigned` is True where the agent obeys commands that nobody has signed, else None: all it says shows it.
    """

    agent: str
    incarnation: str
    store_generation: str
    shapes: Mapping[str, type] = field(default_factory=dict)
    """The parameters' dataclasses by command type, where those that the contract has are not all."""
    accepts_unsigned: bool | None = None

    def _echo(self, command: Command, state: State) -> JsonObject:
        said = command.original or to_json(command)
        echo: JsonObject = mask_secret_parameters(command, said, self.shapes.get(command.type))
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
        """Say that the command is in the store; sent only after the commit."""
        return self._encoded(
            FeedbackKind.ACCEPTED,
            str(state),
            "The command is stored.",
            command_id=command.id,
            sequence=command.sequence,
            notes=command.notes,
        )

    def progress(self, command: Command) -> EncodedFeedback:
        """Say that the command runs."""
        return self._encoded(FeedbackKind.PROGRESS, str(State.PROCESSING), "The command runs.", command_id=command.id)

    def gap(self, asked: SequenceNumber, expected: int) -> EncodedFeedback:
        """Say that numbers before `asked` are missing and which one must come next in that epoch."""
        message = f"Number {asked.number} came, but {expected} must come first; send again from there."
        return self._encoded(FeedbackKind.GAP, str(State.PENDING), message, sequence=asked, expected=expected)

    def result(
        self, command: Command, result: Result, finished_at: datetime, started_at: datetime | None = None
    ) -> EncodedFeedback:
        """Turn what a handler returned into the command's one final result, with its digest."""
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
        """Answer a repeated command: its result if it has one, else that it is stored."""
        return stored.result or self.accepted(stored.command, stored.state)
