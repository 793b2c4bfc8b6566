"""The command store's twin in memory: the same guarantees, without a disk. It outlives the agents that use it."""

import copy
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from broker.contract.journal import JournalPage, Opened
from broker.contract.messages import Command, JournalMark, SequenceNumber
from broker.contract.states import Outcome, State
from consumer.errors import StoreError, StoreFull
from consumer.ports import EncodedFeedback, StoredCommand, TimeSample, Tombstone
from consumer.store.journal import Journal, JournalTail, page_number, read_page


@dataclass
class _Contents:
    arrival: int = 0
    last_sequence: SequenceNumber | None = None
    live: dict[str, StoredCommand] = field(default_factory=dict)
    tombstones: dict[str, tuple[Tombstone, datetime]] = field(default_factory=dict)
    cancels: dict[str, datetime] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)
    tail: JournalTail = field(default_factory=JournalTail)
    time_sample: TimeSample | None = None
    starts: int = 0


def remembered(stored: StoredCommand) -> Tombstone:
    """What is left of a done command."""
    assert stored.result is not None
    said = stored.result.feedback
    return Tombstone(stored.command.id, said.digest or "", said.outcome or Outcome.SUCCESS, said.code)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryCommandStore:
    """`full` makes it refuse new commands, as a full disk does."""

    def __init__(self, closed_epoch: int = 0, now: Callable[[], datetime] = _utc_now) -> None:
        self.closed_epoch = closed_epoch
        self.store_generation = uuid.uuid4().hex
        self.full = False
        self._contents = _Contents()
        self._in_transaction = False
        self._now = now
        self._load_journal()
        with self.transaction():  # a new store begins its journal
            pass

    def _load_journal(self) -> None:
        contents = self._contents
        firsts = sorted(first for first in map(page_number, contents.pages) if first)
        lost = "The store was lost." if self.closed_epoch else None
        opened = Opened(self.store_generation, len(contents.live), lost)
        self._journal = Journal(contents.pages, contents.tail, firsts, self._now, opened)

    @property
    def row_damage(self) -> str | None:
        return None

    @property
    def has_room(self) -> bool:
        return not self.full

    @property
    def audit_head(self) -> JournalMark | None:
        return self._contents.tail.head if self._contents.tail.head.number else None

    @property
    def journal_tail(self) -> JournalTail:
        return self._contents.tail

    def journal_pages(self) -> list[JournalPage]:
        pages = [read_page(page_number(key) or 0, row) for key, row in sorted(self._contents.pages.items())]
        tail = self._contents.tail.page()
        return [*pages, tail] if tail.entries else pages

    @property
    def last_sequence(self) -> SequenceNumber | None:
        return self._contents.last_sequence

    @property
    def time_sample(self) -> TimeSample | None:
        return self._contents.time_sample

    def save_time_sample(self, heard: TimeSample) -> None:
        self._contents.time_sample = heard

    @property
    def starts(self) -> int:
        return self._contents.starts

    def count_start(self) -> None:
        self._contents.starts += 1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._in_transaction:
            yield
            return
        before = copy.copy(self._contents)
        before.live, before.tombstones = dict(before.live), dict(before.tombstones)
        before.cancels, before.pages = dict(before.cancels), dict(before.pages)
        self._in_transaction = True
        try:
            yield
            if self._journal.flush():
                self._contents.tail = self._journal.tail
        except BaseException:
            self._contents = before
            self._load_journal()
            raise
        finally:
            self._in_transaction = False

    def store_command(
        self, command: Command, received_at: datetime, signed_by: tuple[str, ...] = (), trace: str | None = None
    ) -> StoredCommand:
        if self.full:
            raise StoreFull("The disk is full.")
        with self.transaction():
            contents = self._contents
            contents.arrival += 1
            key = f"c/{contents.arrival:016d}"
            stored = StoredCommand(key, command, State.PENDING, received_at, signed_by=signed_by, trace=trace)
            contents.live[command.id] = stored
            contents.last_sequence = command.sequence or contents.last_sequence
            self._journal.accepted(command)
            return stored

    def advance_sequence(self, sequence: SequenceNumber) -> None:
        self._contents.last_sequence = sequence

    def find(self, command_id: str) -> StoredCommand | None:
        return self._contents.live.get(command_id)

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        found = self._contents.tombstones.get(command_id)
        return found[0] if found else None

    def find_reported(self, command_id: str) -> Tombstone | None:
        stored = self._contents.live.get(command_id)
        return remembered(stored) if stored and stored.result else None

    def restore_result(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        return self._keep(replace(stored, result=result, damage=None))

    def find_id(self, prefix: str) -> str | None:
        ids = [*self._contents.live, *self._contents.tombstones]
        return next((name for name in ids if name.startswith(prefix)), None)

    def get_next_commands(self, limit: int) -> Iterator[StoredCommand]:
        return iter(self._in(State.PENDING)[:limit])

    def in_processing(self) -> list[StoredCommand]:
        return self._in(State.PROCESSING)

    def with_results(self) -> list[StoredCommand]:
        return self._in(State.DONE)

    def _in(self, state: State) -> list[StoredCommand]:
        return [stored for stored in self._contents.live.values() if stored.state is state]

    def mark_processing(self, stored: StoredCommand, started_at: datetime, incarnation: str) -> StoredCommand:
        if self._contents.live[stored.command.id].state is not State.PENDING:
            raise StoreError(f"The command {stored.command.id} is not pending.", code="not_pending")
        with self.transaction():
            self._journal.begun(stored.command.id, incarnation)
            return self._keep(replace(stored, state=State.PROCESSING, started_at=started_at, begun_by=incarnation))

    def mark_resumed(self, stored: StoredCommand, incarnation: str) -> None:
        if self._contents.live[stored.command.id].state is not State.PROCESSING:
            raise StoreError(f"The command {stored.command.id} is not in processing.", code="not_in_processing")
        with self.transaction():
            self._journal.resumed(stored.command.id, incarnation)

    def mark_completed(self, stored: StoredCommand, result: EncodedFeedback) -> StoredCommand:
        now = self._contents.live.get(stored.command.id)
        if now is None or now.state is State.DONE:
            raise StoreError(f"The command {stored.command.id} already has its result.", code="already_completed")
        with self.transaction():
            self._journal.reported(stored.command.id, result.feedback)
            self._contents.cancels.pop(stored.command.id, None)
            return self._keep(replace(stored, state=State.DONE, result=result))

    def _keep(self, stored: StoredCommand) -> StoredCommand:
        self._contents.live[stored.command.id] = stored
        return stored

    def delete_completed_commands(self, command_ids: Sequence[str], tombstones_expire_at: datetime) -> None:
        with self.transaction():
            for command_id in command_ids:
                stored = self._contents.live.get(command_id)
                if stored is None or stored.result is None:
                    raise StoreError(f"The command {command_id} is not completed.", code="not_completed")
                self._contents.tombstones[command_id] = (remembered(stored), tombstones_expire_at)
                del self._contents.live[command_id]
                self._journal.deleted(command_id)

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        self._contents.cancels[command_id] = expires_at

    def is_cancelled(self, command_id: str) -> bool:
        return command_id in self._contents.cancels

    def tidy(self, now: datetime) -> bool:
        contents = self._contents
        contents.tombstones = {name: kept for name, kept in contents.tombstones.items() if kept[1] > now}
        contents.cancels = {name: expires_at for name, expires_at in contents.cancels.items() if expires_at > now}
        return False

    def check(self) -> None:
        with self.transaction():
            if self.full:
                raise StoreFull("The disk is full.")

    def pending_count(self) -> int:
        return len(self._contents.live) - self.done_count()

    def done_count(self) -> int:
        return len(self.with_results())

    def close(self) -> None:
        """Do nothing: there are no files."""
