"""The command store on the disk: durable rows, in order of arrival, one writer.

A command has a row, written once; its result has another, which outlives it as its tombstone. One more row, the head,
lists the commands in processing. So a commit needs few writes, however many commands change their state in it.

Every change of a command's state is recorded in the journal, whose pages are rows of the same commit.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice

from broker.contract.journal import Opened
from broker.contract.messages import Command, JournalMark, SequenceNumber
from broker.contract.states import State
from consumer.errors import StoreError, StoreFull
from consumer.ports import EncodedFeedback, StoredCommand, TimeSample, Tombstone
from consumer.store.cache import DurableRows
from consumer.store.damage import DISK_FULL, StoreDamage
from consumer.store.index import CommandIndex
from consumer.store.journal import Journal, page_number
from consumer.store.rows import (
    CANCEL,
    CHECK,
    COMMAND,
    GENERATION,
    HEAD,
    RESULT,
    CommandRow,
    DeletedRow,
    HeadRow,
    Processing,
    assemble,
    decode_command_row,
    decode_head,
    decode_result,
    encode,
)
from consumer.store.state_directory import Ballast, Epochs

__all__ = ["DiskCommandStore"]


_OLDER_STORE = "The store is older than its journal: earlier entries are missing."
_JOINED = contextlib.nullcontext()


class DiskCommandStore:
    """The CommandStore of consumer.ports on the disk; consumer.store.opening opens it.

    `damage` describes the damage to the store that was found; None if there was none.
    """

    def __init__(
        self,
        rows: DurableRows,
        lock: int,
        ballast: Ballast,
        epochs: Epochs,
        damage: StoreDamage | None,
        now: Callable[[], datetime],
    ) -> None:
        self._now = now
        self._rows = rows
        self._lock = lock
        self._ballast = ballast
        self._epochs = epochs
        self._is_in_transaction = False
        self._load()
        self.damage = damage or self._journal.damage
        self._full = not self._ballast.trim()

    def _load(self) -> None:
        self.store_generation = self._rows.read(GENERATION, bytes.decode)
        head = self._rows.read(HEAD, decode_head)
        self._arrival, self.last_sequence, self.closed_epoch = head.arrival, head.last_sequence, head.closed_epoch
        self.time_sample = head.heard_time
        self._head_changed = False
        keys = self._rows.keys()
        self._index = CommandIndex(self._rows, keys, head)
        first_numbers = [number for number in map(page_number, keys) if number]
        opened = Opened(self.store_generation, len(self._index.keys), _OLDER_STORE)
        self._journal = Journal(self._rows, head.journal, first_numbers, self._now, opened)

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything inside together; if it raises, disk and memory are as before."""
        return _JOINED if self._is_in_transaction else self._transaction()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._full = not self._ballast.trim()
        try:
            with self._rows.transaction():
                self._is_in_transaction = True
                yield
                self._write_head()
        except BaseException:
            if self._is_in_transaction:  # else it never began, and nothing has changed
                self._load()
            raise
        finally:
            self._is_in_transaction = False

    def _write_head(self) -> None:
        if self._journal.flush() or self._head_changed:
            self.remember_epoch()
            head = HeadRow(
                self._arrival,
                self.last_sequence,
                self.closed_epoch,
                self._index.processing,
                self._journal.tail,
                self.time_sample,
            )
            self._rows[HEAD] = encode(head)
            self._head_changed = False

    def remember_epoch(self) -> None:
        """Store the latest epoch outside the store as well; raises StoreError."""
        last = self.last_sequence
        self._epochs.keep(max(self.closed_epoch, last.epoch if last else 0))

    def _stored(self, key: str) -> StoredCommand:
        index = self._index
        result = self._rows.read(RESULT + index.completed[key], decode_result) if key in index.completed else None
        return assemble(key, self._rows.read(key, decode_command_row), index.processing.get(key), result)

    def save_time_sample(self, sample: TimeSample) -> None:
        """Store a sample of the server's and the machine's time."""
        with self.transaction():
            self.time_sample = sample
            self._head_changed = True

    def store_command(self, command: Command, received_at: datetime, signed_by: tuple[str, ...] = ()) -> StoredCommand:
        """Append a pending command; advances last_sequence if the command has a sequence."""
        with self.transaction():
            if self._full:
                raise StoreFull(DISK_FULL)
            self._arrival += 1
            self._head_changed = True
            key = f"{COMMAND}{self._arrival:016d}"
            self._rows.add(key, encode(CommandRow(command, received_at, signed_by)))
            self._index.add(key, command.id)
            if command.sequence is not None:
                self.last_sequence = command.sequence
            self._journal.accepted(command)
            return StoredCommand(key, command, State.PENDING, received_at, signed_by=signed_by)

    def advance_sequence(self, sequence: SequenceNumber) -> None:
        """Advance last_sequence without storing a command."""
        with self.transaction():
            self.last_sequence = sequence
            self._head_changed = True

    def find(self, command_id: str) -> StoredCommand | None:
        """Return the live command with this id, or None."""
        key = self._index.keys.get(command_id)
        return self._stored(key) if key else None

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        """Return the tombstone of a deleted command, or None."""
        expires_at = self._index.tombstones.get(command_id)
        return Tombstone(self._rows.read(RESULT + command_id, decode_result), expires_at) if expires_at else None

    def find_id(self, prefix: str) -> str | None:
        """Return the id, of a live or a deleted command, that starts with `prefix`; None if there is none."""
        return self._index.find_id(prefix)

    def get_next_commands(self, limit: int) -> Iterator[StoredCommand]:
        """Yield the commands that are pending now, oldest first, at most `limit`; each is read when it is yielded."""
        return map(self._stored, list(islice(self._index.pending, limit)))

    def in_processing(self) -> list[StoredCommand]:
        """Return the commands found in processing, in order."""
        return [self._stored(key) for key in self._index.processing]

    def with_results(self) -> list[StoredCommand]:
        """Return the done commands, in order."""
        return [self._stored(key) for key in sorted(self._index.completed)]

    def mark_processing(self, stored: StoredCommand, started_at: datetime, incarnation: str) -> StoredCommand:
        """Move a pending command to processing."""
        with self.transaction():
            begun = Processing(started_at, incarnation)
            if not self._index.begin(stored.key, begun):
                raise StoreError(f"The command {stored.command.id} is not pending.", code="not_pending")
            self._head_changed = True
            self._journal.begun(stored.command.id, incarnation)
            return assemble(stored.key, stored, begun, None)

    def mark_resumed(self, stored: StoredCommand, incarnation: str) -> None:
        """Record that a command found in processing runs again."""
        if stored.key not in self._index.processing:
            raise StoreError(f"The command {stored.command.id} is not in processing.", code="not_in_processing")
        with self.transaction():
            self._journal.resumed(stored.command.id, incarnation)

    def mark_completed(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        """Move a pending or processing command to done; a result is never replaced."""
        key, command_id = stored.key, stored.command.id
        if not self._index.is_open(key, command_id):
            raise StoreError(f"The command {command_id} already has its result.", code="already_completed")
        with self.transaction():
            self._rows[RESULT + command_id] = result.encoded
            self._head_changed |= self._index.complete(key, command_id)
            self._journal.reported(command_id, result.feedback)
            return assemble(key, stored, None, result)

    def delete_completed_commands(self, command_ids: Sequence[str], tombstones_expire_at: datetime) -> None:
        """Delete done commands, leaving a tombstone for each."""
        if not command_ids:
            return
        with self.transaction():
            for command_id in command_ids:
                key = self._index.remove_completed(command_id)
                if key is None:
                    raise StoreError(
                        f"The command {command_id} has no result yet and cannot be deleted.", code="not_completed"
                    )
                self._rows.discard(key)
                self._journal.deleted(command_id)
            deleted = DeletedRow(list(command_ids), tombstones_expire_at)
            key = self._index.next_deleted_key()
            self._rows[key] = encode(deleted)
            self._index.add_tombstones(key, deleted)

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        """Store a cancel of a command that has not arrived or not begun."""
        with self.transaction():
            self._rows[CANCEL + command_id] = expires_at.isoformat().encode()
            self._index.cancels[command_id] = expires_at

    def is_cancelled(self, command_id: str) -> bool:
        """Return whether a cancel for this id is stored."""
        return command_id in self._index.cancels

    def drop_expired(self, now: datetime) -> int:
        """Delete expired tombstones and cancels; return how many."""
        index = self._index
        expired = [key for key, deleted in index.deleted.items() if deleted.expires_at <= now]
        cancels = [command_id for command_id, expires_at in index.cancels.items() if expires_at <= now]
        dropped = len(cancels)
        with self.transaction():
            for key in expired:
                self._rows.discard(key)
                for command_id in index.remove_tombstones(key):
                    self._rows.discard(RESULT + command_id)
                    dropped += 1
            for command_id in cancels:
                self._rows.discard(CANCEL + command_id)
                del index.cancels[command_id]
        return dropped

    def check(self) -> None:
        """Commit a meaningless row, to prove that commands can be stored; raises StoreFull and StoreError."""
        with self.transaction():
            if self._full:
                raise StoreFull(DISK_FULL)
            self._rows[CHECK] = b"1"

    def pending_count(self) -> int:
        """Return how many commands are pending or in processing."""
        return len(self._index.pending) + len(self._index.processing)

    def done_count(self) -> int:
        """Return how many results wait for their acks."""
        return len(self._index.completed)

    @property
    def has_room(self) -> bool:
        """Whether there was room for another command when the last transaction began."""
        return not self._full

    @property
    def audit_head(self) -> JournalMark | None:
        """Where the journal ends on the disk; None before its first entry."""
        head = self._journal.tail.head
        return head if head.number else None

    def close(self) -> None:
        """Release the files and the lock."""
        self._rows.close()
        os.close(self._lock)
