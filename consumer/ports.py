"""The ports of the agent: the interfaces of its parts and of the machine. Tests have in-memory versions."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from broker.contract.messages import Command, Feedback, JournalMark, JsonObject, SequenceNumber
from broker.contract.states import ErrorCode, FeedbackKind, Outcome, State

__all__ = [
    "BackgroundTask",
    "Blobs",
    "Clock",
    "CommandStore",
    "EncodedFeedback",
    "LaterFeedback",
    "Notice",
    "ReadinessProblem",
    "Service",
    "ServiceState",
    "Stop",
    "StoredCommand",
    "TimeSample",
    "Tombstone",
]


class Clock(Protocol):
    """The clock that all parts read."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""


class Notice(Protocol):
    """Feedback to send."""

    @property
    def command_id(self) -> str | None:
        """The command that it is about."""

    @property
    def kind(self) -> FeedbackKind:
        """The kind of feedback."""

    @property
    def encoded(self) -> bytes:
        """Its JSON object."""


class EncodedFeedback(msgspec.Struct, frozen=True):
    """Feedback and its JSON object, encoded once: a result is stored and sent as these bytes.

    The bytes of a result end with its digest, the SHA-256 of the object without that last member.
    """

    feedback: Feedback
    encoded: bytes

    @property
    def command_id(self) -> str | None:
        """The command that it is about."""
        return self.feedback.command_id

    @property
    def kind(self) -> FeedbackKind:
        """The kind of feedback."""
        return self.feedback.kind


class LaterFeedback(msgspec.Struct, frozen=True):
    """Feedback that is made once it is sent: the result of its command mostly makes it obsolete before."""

    command_id: str | None
    kind: FeedbackKind
    make: Callable[[], EncodedFeedback]

    @property
    def feedback(self) -> Feedback:
        """The feedback."""
        return self.make().feedback

    @property
    def encoded(self) -> bytes:
        """Its JSON object."""
        return self.make().encoded


class StoredCommand(msgspec.Struct, frozen=True):
    """A command in the store. `key` sorts by arrival; `begun_by` is the incarnation of the agent that started it.

    `signed_by` has the ids of the trusted keys that had signed it on arrival, and is empty if it was unsigned. It is
    None in rows of an earlier version of the agent, which did not store it.

    `trace` is the text of the context in which it arrived, if it is part of a trace that is recorded; once it has run,
    that of its run.

    With `damage`, one sentence, the disk has altered the command or its result: `command` has nothing but its id, or a
    done command has no `result`.
    """

    key: str
    command: Command
    state: State
    received_at: datetime
    started_at: datetime | None = None
    begun_by: str | None = None
    result: EncodedFeedback | None = None
    signed_by: tuple[str, ...] | None = ()
    damage: str | None = None
    trace: str | None = None


@dataclass(frozen=True)
class Tombstone:
    """What is left of a deleted command: if it is repeated, it is answered with this, and nothing is run."""

    command_id: str
    digest: str
    outcome: Outcome
    code: ErrorCode | None = None


@dataclass(frozen=True)
class TimeSample:
    """A time that the server has signed, and the machine's clock when it was received; both aware, in UTC."""

    server: datetime
    machine: datetime

    @property
    def ahead(self) -> timedelta:
        """How far the server's clock is ahead of the machine's."""
        return self.server - self.machine


class CommandStore(Protocol):
    """Durable commands in order of arrival. One writer. Each call outside `transaction()` is a commit (fsync).

    Each change of a command's state is written to the audit journal (see broker.contract.journal) by the same commit.

    All methods raise StoreError if the disk fails; `store_command` raises StoreFull if there is no room for another
    command, and any method does if there is no room at all.
    """

    store_generation: str
    last_sequence: SequenceNumber | None
    closed_epoch: int
    """The latest epoch of a store that was lost; commands of this epoch or an earlier one may already have run."""
    starts: int
    """How many processes have counted their start in this store."""

    @property
    def row_damage(self) -> str | None:
        """What is wrong with single rows, one sentence, since this process has read them; None if nothing is."""

    @property
    def has_room(self) -> bool:
        """Whether there was room for another command at the last transaction; else `store_command` raises StoreFull."""

    @property
    def audit_head(self) -> JournalMark | None:
        """The end of the journal; None before its first entry."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything inside together, or nothing of it if the block raises."""

    @property
    def time_sample(self) -> TimeSample | None:
        """The last argument of `save_time_sample`, or None."""

    def save_time_sample(self, sample: TimeSample) -> None:
        """Store the newest signed time of the server."""

    def count_start(self) -> None:
        """Count one more start of the agent."""

    def store_command(
        self, command: Command, received_at: datetime, signed_by: tuple[str, ...] = (), trace: str | None = None
    ) -> StoredCommand:
        """Append a pending command; advances last_sequence if the command has a sequence."""

    def advance_sequence(self, sequence: SequenceNumber) -> None:
        """Advance last_sequence without storing a command."""

    def find(self, command_id: str) -> StoredCommand | None:
        """Return the live command with this id, or None."""

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        """Return the tombstone of a deleted command, or None."""

    def find_id(self, prefix: str) -> str | None:
        """Return the id of a live or deleted command that starts with `prefix`, or None."""

    def get_next_commands(self, limit: int) -> Iterator[StoredCommand]:
        """Yield the commands that are pending now, oldest first, at most `limit`; each is read when it is iterated."""

    def in_processing(self) -> list[StoredCommand]:
        """Return the commands found in processing, in order."""

    def with_results(self) -> list[StoredCommand]:
        """Return the done commands, in order."""

    def mark_processing(self, stored: StoredCommand, started_at: datetime, incarnation: str) -> StoredCommand:
        """Move a pending command to processing."""

    def mark_resumed(self, stored: StoredCommand, incarnation: str) -> None:
        """Record that a command in processing runs again; raises StoreError for any other."""

    def mark_completed(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        """Move a pending or processing command to done, with its final result; raises StoreError for a done one."""

    def find_reported(self, command_id: str) -> Tombstone | None:
        """Return what the journal has of the result of a live command, or None if it has nothing any more."""

    def restore_result(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        """Replace the damaged result of a done command; raises StoreError for any other."""

    def delete_completed_commands(self, command_ids: Sequence[str], tombstones_expire_at: datetime) -> None:
        """Delete done commands, leaving a tombstone for each; raises StoreError for one that is not done."""

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        """Store the cancel of a command that has not arrived or not begun."""

    def is_cancelled(self, command_id: str) -> bool:
        """Return whether a cancel for this id is stored."""

    def tidy(self, now: datetime) -> bool:
        """Delete some expired tombstones and cancels, or release some of their space; return whether more is left."""

    def check(self) -> None:
        """Commit a meaningless row, as proof that commands can be stored."""

    def pending_count(self) -> int:
        """Return how many commands are pending or running."""

    def done_count(self) -> int:
        """Return how many results wait for their ack."""


class Blobs(Protocol):
    """The files that the server holds for this agent, read over MQTT by the threads that run handlers."""

    def read(self, name: str, offset: int, size: int) -> Generator[bytes, None, None]:
        """Yield the bytes of the blob with this SHA-256 and size, starting at `offset`, in blocks.

        Never times out: an empty block means that nothing has arrived for a moment, so that the reader can check its
        deadline. Raises DownloadError if the server refuses.
        """


@dataclass(frozen=True)
class Stop:
    """How an incarnation was stopped: by TERM, or `killed` because it did not end within `grace_s` seconds."""

    killed: bool
    grace_s: float | None = None

    def in_words(self) -> str:
        """Return the predicate of a sentence about a killed incarnation; empty for one that ended on TERM."""
        if not self.killed:
            return ""
        waited = "in time" if self.grace_s is None else f"within {self.grace_s:.3g} s"
        return f"did not end on TERM {waited} and was killed"


@dataclass(frozen=True)
class ServiceState:
    """The state of the managed service; each start of it has another `incarnation`.

    `stop` is set in the return values of `Service.stop` and `Service.restart` if an incarnation was stopped and it is
    known how.
    """

    kind: str
    running: bool
    incarnation: str | None = None
    detail: JsonObject | None = None
    stop: Stop | None = None


ReadinessProblem = Callable[[], str | None]
"""Returns why this process is not ready (connected, storing and answered) yet, or None. Any thread may call it."""


class BackgroundTask(Protocol):
    """Background work of the agent. Never blocks and never raises, because the agent's loop calls it."""

    def step(self) -> None:
        """Do the work that is due now."""

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) work is due next; None if no time is known."""


class Service(Protocol):
    """The service that the agent manages: a child process, a systemd unit, or the embedding program.

    All methods raise ServiceError. Deadlines are seconds of the monotonic clock.
    """

    def state(self) -> ServiceState:
        """Return the service's current state."""

    def start(self, deadline: float) -> ServiceState:
        """Start it if it does not run; raises ServiceError if it ends at once."""

    def stop(self, deadline: float) -> ServiceState:
        """Stop it, and keep it stopped across restarts of the agent."""

    def restart(self, deadline: float) -> ServiceState:
        """Replace the running incarnation by a new one."""
