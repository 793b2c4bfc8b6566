"""The command store on the disk: durable rows, in order of arrival, one writer.

A command has a row, written once; its result has another. One more row, the head, lists the commands in processing. So
a commit needs few writes, however many commands change their state in it. Once a result is acked, both rows are
deleted, and a tombstone remains.

Every change of a command's state is recorded in the journal, whose pages are rows of the same commit.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice

from msgspec.structs import replace

from broker.contract.journal import Opened
from broker.contract.messages import Command, JournalMark, SequenceNumber
from consumer.errors import StoreError, StoreFull
from consumer.ports import EncodedFeedback, StoredCommand, TimeSample, Tombstone
from consumer.store.cache import DurableRows
from consumer.store.damage import DISK_FULL, StoreDamage
from consumer.store.journal import PAGES, Journal, page_number
from consumer.store.rows import (
    CANCEL,
    CHECK,
    GENERATION,
    HEAD,
    RESULT,
    DeletedRow,
    HeadRow,
    Processing,
    assemble,
    command_key,
    copy_of_generation,
    decode_head,
    encode,
    generation_of,
)
from consumer.store.state_directory import Ballast, Epochs
from consumer.store.stored_rows import StoredRows
from consumer.store.tombstones import Gone, Tombstones

__all__ = ["DiskCommandStore"]


_OLDER_STORE = "The store is older than its journal: earlier entries are missing."
_JOINED = contextlib.nullcontext()
_PER_STEP = 64


class DiskCommandStore:
    """The CommandStore of consumer.ports on the disk; consumer.store.opening opens it.

    `damage` describes the damage to the store that was found; None if there was none. `stores_together` is whether what
    is committed together may share rows, which releases before them cannot read. `commits` counts transactions that
    were committed, each by one fsync.
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
        self.stores_together = True
        self.commits = 0
        self._is_in_transaction = False
        self._tombstones = Tombstones(rows)
        self._live = StoredRows(rows, self._tombstones, now)
        self._load()
        self.damage = damage or self._journal.damage
        self._full = not self._ballast.trim()

    def _load(self) -> None:
        head = self._rows.read(HEAD, decode_head)
        self.store_generation = self._rows.read(GENERATION, lambda row: generation_of(row, head.generation))
        self._copy_of_generation = copy_of_generation(self.store_generation)
        self._arrival, self.last_sequence, self.closed_epoch = head.arrival, head.last_sequence, head.closed_epoch
        self.time_sample, self.starts = head.heard_time, head.starts
        self._head_changed = False
        self._live.load(head)
        self._index = self._live.index
        first_numbers = [number for number in map(page_number, self._rows.keys(PAGES)) if number]
        opened = Opened(self.store_generation, len(self._index.keys), _OLDER_STORE)
        self._journal = Journal(self._rows, head.journal, first_numbers, self._now, opened)

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything inside together; if it raises, disk and memory are as before."""
        return _JOINED if self._is_in_transaction else self._transaction()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._full = not self._ballast.trim()
        if self._full:
            with contextlib.suppress(StoreError):
                self._rows.truncate_log()  # SQLite itself would do so only at 4 MiB
        try:
            with self._rows.transaction():
                self._is_in_transaction = True
                yield
                self._live.flush(together=self.stores_together)
                self._write_head()
            self.commits += 1
            self._tombstones.committed()
        except BaseException as error:
            if self._is_in_transaction:  # else it never began, and nothing has changed
                self._tombstones.roll_back()
                self._load()
            if isinstance(error, StoreError):
                self._ballast.after_failure(error)
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
                generation=self._copy_of_generation,
                starts=self.starts,
                grouped=self._live.grouped,
            )
            self._rows[HEAD] = encode(head.checked())
            self._head_changed = False

    def remember_epoch(self) -> None:
        """Store the latest epoch outside the store as well; raises StoreError."""
        last = self.last_sequence
        self._epochs.keep(max(self.closed_epoch, last.epoch if last else 0))

    @property
    def row_damage(self) -> str | None:
        """What is wrong with single rows, as far as they were read."""
        return self._live.damage or self._tombstones.damage

    def save_time_sample(self, sample: TimeSample) -> None:
        """Store a sample of the server's and the machine's time."""
        with self.transaction():
            self.time_sample = sample
            self._head_changed = True

    def count_start(self) -> None:
        """Count one more start of the agent."""
        with self.transaction():
            self.starts += 1
            self._head_changed = True

    def store_command(
        self, command: Command, received_at: datetime, signed_by: tuple[str, ...] = (), trace: str | None = None
    ) -> StoredCommand:
        """Append a pending command; advances last_sequence if the command has a sequence."""
        with self.transaction():
            if self._full:
                raise StoreFull(DISK_FULL)
            self._arrival += 1
            self._head_changed = True
            key = command_key(self._arrival, command.id)
            stored = self._live.add_command(key, command, received_at, signed_by, trace)
            if command.sequence is not None:
                self.last_sequence = command.sequence
            self._journal.accepted(command)
            return stored

    def advance_sequence(self, sequence: SequenceNumber) -> None:
        """Advance last_sequence without storing a command."""
        with self.transaction():
            self.last_sequence = sequence
            self._head_changed = True

    def find(self, command_id: str) -> StoredCommand | None:
        """Return the live command with this id, or None."""
        key = self._index.keys.get(command_id)
        return self._live.read(key, command_id) if key else None

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        """Return the tombstone of a deleted command, or None."""
        if command_id in self._index.kept:
            return self._live.gone(command_id).tombstone()
        return self._tombstones.find(command_id)

    def find_id(self, prefix: str) -> str | None:
        """Return the id, of a live or a deleted command, that starts with `prefix`; None if there is none."""
        deleted = (command_id for command_id in self._tombstones if command_id.startswith(prefix))
        return self._index.find_id(prefix) or next(deleted, None)

    def find_reported(self, command_id: str) -> Tombstone | None:
        """Return what the journal has of the result of a live command, or None if it has nothing any more."""
        reported = self._journal.find_reported(command_id)
        return Gone(command_id, reported.digest or "", reported.code).tombstone() if reported else None

    def get_next_commands(self, limit: int) -> Iterator[StoredCommand]:
        """Yield the commands that are pending now, oldest first, at most `limit`; each is read when it is yielded."""
        return (self._live.read(*item) for item in list(islice(self._index.pending.items(), limit)))

    def in_processing(self) -> list[StoredCommand]:
        """Return the commands found in processing, in order."""
        return [self._live.read(key, command_id) for key, command_id in self._index.in_processing()]

    def with_results(self) -> list[StoredCommand]:
        """Return the done commands, in order."""
        return [self._live.read(*item) for item in sorted(self._index.completed.items())]

    def mark_processing(self, stored: StoredCommand, started_at: datetime, incarnation: str) -> StoredCommand:
        """Move a pending command to processing."""
        with self.transaction():
            begun = Processing(started_at, incarnation)
            if not self._live.begin(stored.key, begun):
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
            self._head_changed |= self._live.complete(key, command_id, result)
            self._journal.reported(command_id, result.feedback)
            if self._index.cancels.pop(command_id, None):
                self._rows.discard(CANCEL + command_id)
            return assemble(key, stored, None, result)

    def restore_result(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        """Replace the damaged result of a done command."""
        key, command_id = stored.key, stored.command.id
        if key not in self._index.completed or not stored.damage:
            raise StoreError(f"The result of the command {command_id} is not damaged.", code="result_not_damaged")
        with self.transaction():
            if self._journal.find_reported(command_id) is None:
                self._journal.reported(command_id, result.feedback)
            self._live.replace_result(command_id, result)
            return replace(stored, result=result, damage=None)

    def delete_completed_commands(self, command_ids: Sequence[str], tombstones_expire_at: datetime) -> None:
        """Delete done commands, leaving a tombstone for each."""
        if not command_ids:
            return
        with self.transaction():
            gone = self._live.delete(command_ids)
            for command_id in command_ids:
                self._journal.deleted(command_id)
            self._tombstones.add(gone, tombstones_expire_at)

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        """Store a cancel of a command that has not arrived or not begun."""
        with self.transaction():
            self._rows[CANCEL + command_id] = expires_at.isoformat().encode()
            self._index.cancels[command_id] = expires_at

    def is_cancelled(self, command_id: str) -> bool:
        """Return whether a cancel for this id is stored."""
        return command_id in self._index.cancels

    # design.md: "The store is tidied in small steps"
    def tidy(self, now: datetime) -> bool:
        """Delete some expired tombstones and cancels, or release some of their space; return whether more is left."""
        with self.transaction():
            dropped = self._drop_cancels(now) or self._drop_kept_results(now) or self._tombstones.drop(now)
        return dropped > 0 or self._rows.release_space()

    def _drop_cancels(self, now: datetime) -> int:
        cancels = self._index.cancels
        expired = [command_id for command_id, expires_at in cancels.items() if expires_at <= now][:_PER_STEP]
        for command_id in expired:
            self._rows.discard(CANCEL + command_id)
            del cancels[command_id]
        return len(expired)

    def _drop_kept_results(self, now: datetime) -> int:
        """Drop results that an earlier version kept as tombstones; those that have not expired become ours."""
        index = self._index
        key, row = next(iter(index.deleted.items()), ("", DeletedRow([], now)))
        dropped, left = row.command_ids[:_PER_STEP], row.command_ids[_PER_STEP:]
        if dropped and row.expires_at > now:
            self._tombstones.add([self._live.gone(command_id) for command_id in dropped], row.expires_at)
        for command_id in dropped:
            self._rows.discard(RESULT + command_id)
            index.kept.discard(command_id)
        if left:
            index.deleted[key] = DeletedRow(left, row.expires_at)
            self._rows[key] = encode(index.deleted[key])
        elif index.deleted.pop(key, None):
            self._rows.discard(key)
        return len(dropped)

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
    def size_bytes(self) -> int:
        """The size of the store's files; also for another thread."""
        return self._rows.size_bytes

    @property
    def audit_head(self) -> JournalMark | None:
        """Where the journal ends on the disk; None before its first entry."""
        head = self._journal.tail.head
        return head if head.number else None

    def close(self) -> None:
        """Release the files and the lock."""
        self._live.close()
        self._rows.close()
        os.close(self._lock)
