"""Makes the agent's feedback: fills in the sender, and computes the digest of each result."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from broker.contract.codec import encode, to_json
from broker.contract.commands import secret_values
from broker.contract.messages import Command, Feedback, JsonObject, Output, SequenceNumber, wire_members
from broker.contract.secrets import masked_values
from broker.contract.states import ErrorCode, FeedbackKind, Outcome, State
from broker.text import encodable
from consumer.engine.sealing import UnreportableResult, json_data, sealed
from consumer.handler import Result
from consumer.ports import EncodedFeedback, LaterFeedback, StoredCommand, Tombstone

__all__ = [
    "FeedbackFactory",
]


_log = structlog.get_logger(__name__)


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
        secrets = secret_values(command, self.shapes.get(command.type))
        if not secrets:  # the usual case: the members are encoded once, with the feedback
            return {**(command.original or wire_members(command)), "status": str(state)}
        return {**masked_values(command.original or to_json(command), secrets), "status": str(state)}

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

    def accepted(self, command: Command, state: State = State.PENDING) -> LaterFeedback:
        """Return the notice that the command is stored; send it only after the commit."""
        return LaterFeedback(command.id, FeedbackKind.ACCEPTED, lambda: self._accepted(command, state))

    def _accepted(self, command: Command, state: State) -> EncodedFeedback:
        return self._encoded(
            FeedbackKind.ACCEPTED,
            str(state),
            "The command is stored.",
            command_id=command.id,
            sequence=command.sequence,
            notes=command.notes,
        )

    def progress(self, command_id: str) -> LaterFeedback:
        """Return the notice that the command is running."""
        kind, status = FeedbackKind.PROGRESS, str(State.PROCESSING)
        make = partial(self._encoded, kind, status, "The command runs.", command_id=command_id)
        return LaterFeedback(command_id, kind, make)

    def gap(self, sequence: SequenceNumber, expected: int) -> EncodedFeedback:
        """Return the notice that `sequence` was not stored; `expected` is the next number of its epoch."""
        why = "it was not stored" if sequence.number == expected else f"{expected} must come first"
        message = f"Sequence number {sequence.number} arrived, but {why}; send again from {expected}."
        return self._encoded(FeedbackKind.GAP, str(State.PENDING), message, sequence=sequence, expected=expected)

    def result(
        self,
        command: Command,
        result: Any,
        finished_at: datetime,
        started_at: datetime | None = None,
        *,
        echoes: bool = True,
    ) -> EncodedFeedback:
        """Return the command's one final result, with its digest, from what a handler returned. Never raises.

        A value that is not a Result, or cannot be expressed on the wire, becomes a result with the code `failed`.
        """
        try:
            return sealed(self._result(command, result, finished_at, started_at, echoes=echoes))
        except Exception as error:
            why = encodable(str(error)) if isinstance(error, UnreportableResult) else type(error).__name__
            _log.error("result_unreportable", command_id=command.id, type=command.type, reason=why)
            failed = Result(f"The command ended, but its result cannot be reported: {why}.", code=ErrorCode.FAILED)
            return sealed(replace(self._result(command, failed, finished_at, started_at, echoes=False), notes=()))

    def _result(
        self, command: Command, result: Any, finished_at: datetime, started_at: datetime | None, *, echoes: bool = True
    ) -> Feedback:
        if not isinstance(result, Result):
            raise UnreportableResult(f"the handler returned {type(result).__name__} instead of a Result")
        return self._feedback(
            FeedbackKind.RESULT,
            "completed",
            _text(result.message),
            command_id=command.id,
            command=self._echo(command, State.PROCESSING) if echoes else None,
            sequence=command.sequence,
            outcome=Outcome.ERROR if result.code else Outcome.SUCCESS,
            code=result.code,
            data=json_data(result),
            output=_output(result.output),
            started_at=started_at,
            finished_at=finished_at,
            notes=command.notes,
        )

    def result_of(self, stored: StoredCommand, result: Any, finished_at: datetime) -> EncodedFeedback:
        """As `result`, of a stored command."""
        return self.result(stored.command, result, finished_at, stored.started_at, echoes=stored.damage is None)

    def remembered(self, tombstone: Tombstone) -> EncodedFeedback:
        """Return the result of a command whose result was deleted: with its digest, its outcome and its code only."""
        said = self._feedback(
            FeedbackKind.RESULT,
            "completed",
            "The command has ended; the agent has kept only the outcome of it.",
            command_id=tombstone.command_id,
            outcome=tombstone.outcome,
            code=tombstone.code,
            digest=tombstone.digest,
        )
        return EncodedFeedback(said, encode([said]))

    def state_of(self, stored: StoredCommand) -> EncodedFeedback | LaterFeedback:
        """Return the answer to a repeated command: its result if it has one, otherwise the notice that it is stored."""
        return stored.result or self.accepted(stored.command, stored.state)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise UnreportableResult(f"a text in it is of the type {type(text).__name__}")
    return encodable(text)


def _output(output: Any) -> Output | None:
    if output is None:
        return None
    if not isinstance(output, Output):
        raise UnreportableResult(f"its output is of the type {type(output).__name__}")
    return replace(output, stdout=_text(output.stdout), stderr=_text(output.stderr))
