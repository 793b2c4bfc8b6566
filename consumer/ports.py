"""What the parts of the agent need of one another and of the world; each port has an in-memory twin in tests/fakes."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from broker.contract.messages import Command, Feedback, JournalMark, JsonObject, SequenceNumber
from broker.contract.states import State

__all__ = [
    "BackgroundTask",
    "Blobs",
    "Clock",
    "CommandStore",
    "EncodedFeedback",
    "ReadinessProblem",
    "Service",
    "ServiceState",
    "Stop",
    "StoredCommand",
    "TimeSample",
    "Tombstone",
]


class Clock(Protocol):
    """Where the parts read the time."""

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


@dataclass(frozen=True)
class EncodedFeedback:
    """Feedback and its JSON object, encoded once: a result is stored and sent as these bytes.

    The bytes of a result end with its digest, the SHA-256 of the object without that last member.
    """

    feedback: Feedback
    encoded: bytes


@dataclass(frozen=True)
class StoredCommand:
    """One command as the store keeps it. `key` orders by arrival; `begun_by` is the incarnation that started it.

    `signed_by` are the ids of the trusted keys that had signed it when it came, none if it came unsigned; None where an
    earlier version of the agent has stored it, which did not note it.
    """

    key: str
    command: Command
    state: State
    received_at: datetime
    started_at: datetime | None = None
    begun_by: str | None = None
    result: EncodedFeedback | None = None
    signed_by: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class Tombstone:
    """What outlives a deleted command, so that a repeat of it is answered and never run."""

    result: EncodedFeedback
    expires_at: datetime


@dataclass(frozen=True)
class TimeSample:
    """What time it is by what the server has signed, and by the machine's clock at the same moment."""

    server: datetime
    machine: datetime

    @property
    def ahead(self) -> timedelta:
        """By how much the server is ahead of the machine."""
        return self.server - self.machine


class CommandStore(Protocol):
    """Durable commands in order of arrival. One writer. Each call outside `transaction()` commits (fsync) by itself.

    What changes a command's state is noted in the audit journal (see broker.contract.journal) by the same commit.

    All methods raise StoreError when the disk fails; `store_command` raises StoreFull when there is no room for another
    command, and any method does when there is no room at all.
    """

    store_generation: str
    last_sequence: SequenceNumber | None
    closed_epoch: int
    """The latest epoch of a store that was lost here; what is numbered in it, or before, may have run already."""

    @property
    def audit_head(self) -> JournalMark | None:
        """Where the journal ends; None before its first entry."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything inside together, or nothing of it when it raises."""

    @property
    def time_sample(self) -> TimeSample | None:
        """What `save_time_sample` was told last."""

    def save_time_sample(self, heard: TimeSample) -> None:
        """Keep what time it is by what the server has signed."""

    def store_command(self, command: Command, received_at: datetime, signed_by: tuple[str, ...] = ()) -> StoredCommand:
        """Append a pending command; advances last_sequence if the command has a sequence."""

    def advance_sequence(self, sequence: SequenceNumber) -> None:
        """Move last_sequence on without storing a command."""

    def find(self, command_id: str) -> StoredCommand | None:
        """Return the live command with this id."""

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        """Return what is left of a deleted command."""

    def find_id(self, prefix: str) -> str | None:
        """Return the id, live or deleted, that starts with `prefix`."""

    def get_next_commands(self, limit: int) -> Iterator[StoredCommand]:
        """Yield the commands that are pending now, oldest first, at most `limit`; each is read when it is asked for."""

    def in_processing(self) -> list[StoredCommand]:
        """Return the commands found in processing, in order."""

    def with_results(self) -> list[StoredCommand]:
        """Return the done commands, in order."""

    def all_commands(self) -> list[StoredCommand]:
        """Return every live command in order."""

    def mark_processing(self, stored: StoredCommand, started_at: datetime, incarnation: str) -> StoredCommand:
        """Turn a pending command into processing."""

    def mark_resumed(self, stored: StoredCommand, incarnation: str) -> None:
        """Note that a command found in processing runs again; any other is refused (StoreError)."""

    def mark_completed(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        """Turn a pending or processing command into done with its final result; a done one is refused (StoreError)."""

    def delete_completed_commands(self, command_ids: Sequence[str], tombstones_expire_at: datetime) -> None:
        """Delete done commands, leaving a tombstone for each; one that is not done is refused (StoreError)."""

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        """Keep a cancel of a command that has not arrived."""

    def is_cancelled(self, command_id: str) -> bool:
        """Say whether a cancel for this id was remembered."""

    def drop_expired(self, now: datetime) -> int:
        """Delete expired tombstones and cancels; return how many."""

    def check(self) -> None:
        """Commit something that has no meaning, as proof that commands can be stored."""

    def pending_count(self) -> int:
        """Return how many commands wait for their turn or run."""

    def done_count(self) -> int:
        """Return how many results wait for their ack."""

    def close(self) -> None:
        """Release the files and the lock."""


class Blobs(Protocol):
    """The files that the server holds for this agent, read over the wire. For the threads that run handlers."""

    def read(self, name: str, offset: int, size: int) -> Generator[bytes, None, None]:
        """Yield the bytes from `offset` on of the blob with this SHA-256 and size, in order, in blocks.

        Goes on until the reader stops. An empty block means that nothing has come for a moment: look at the time.
        Raises DownloadError when the server refuses.
        """


@dataclass(frozen=True)
class Stop:
    """How an incarnation was ended: by TERM, or `killed` because that did not do it within `grace_s` seconds."""

    killed: bool
    grace_s: float | None = None

    def in_words(self) -> str:
        """Return a sentence about a killed incarnation, to go on after its name; nothing about one that obeyed."""
        if not self.killed:
            return ""
        waited = "in time" if self.grace_s is None else f"within {self.grace_s:.3g} s"
        return f"did not end on TERM {waited} and was killed"


@dataclass(frozen=True)
class ServiceState:
    """What the managed service is doing; `incarnation` differs for each start of it.

    `stop` is there in what `Service.stop` and `Service.restart` return, where something ran and its end is known.
    """

    kind: str
    running: bool
    incarnation: str | None = None
    detail: JsonObject | None = None
    stop: Stop | None = None


ReadinessProblem = Callable[[], str | None]
"""Returns what this process has not proved yet (that it connects, stores and is answered), or None; any thread."""


class BackgroundTask(Protocol):
    """What the agent does beside its commands. Never waits, never raises: it is called from the agent's one loop."""

    def step(self) -> None:
        """Do what is due now."""

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) something is due next; None when nothing is known to be."""


class Service(Protocol):
    """What the agent manages: a child process, a systemd unit, or the embedding program. All raise ServiceError."""

    def state(self) -> ServiceState:
        """Look at the service."""

    def start(self, deadline: float) -> ServiceState:
        """Start it if it does not run; that it ends at once is an error. `deadline`: seconds of the monotonic clock."""

    def stop(self, deadline: float) -> ServiceState:
        """Stop it and remember the wish across restarts of the agent."""

    def restart(self, deadline: float) -> ServiceState:
        """Replace the running incarnation by a new one."""
