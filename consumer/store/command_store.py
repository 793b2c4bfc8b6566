"""The command store on diskcache: durable rows, in order of arrival, bytes only, one writer.

A command has a row, written once; its result has another, which outlives it as its tombstone. One more row, the head,
says which commands are in processing. So a turn costs few writes, however many commands it moves on.

Whatever changes a command's state notes it in the journal, whose pages are rows of the same commit.
"""

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from diskcache import Cache, Disk
from diskcache.core import DEFAULT_SETTINGS, METADATA

from broker.contract.journal import Opened
from broker.contract.messages import Command, Feedback, JournalMark, SequenceNumber
from broker.contract.states import State
from broker.system.files import sync_directory
from consumer.errors import StoreError, StoreFull
from consumer.ports import StoredCommand, TimeSample, Tombstone
from consumer.store.journal import Journal, JournalTail, page_number
from consumer.store.rows import (
    CANCEL,
    CHECK,
    COMMAND,
    DELETED,
    GENERATION,
    HEAD,
    RAW,
    RESULT,
    SENTINEL,
    Arrived,
    Begun,
    Deleted,
    Head,
    assemble,
    decode_arrived,
    decode_deleted,
    decode_head,
    decode_result,
    encode,
)
from consumer.store.state_directory import Ballast, Epochs, make_private, take_lock

__all__ = [
    "DiskCommandStore",
]


_T = TypeVar("_T")
_SETTINGS = {
    "sqlite_synchronous": 2,
    "sqlite_journal_mode": "wal",
    "sqlite_auto_vacuum": 0,
    "sqlite_mmap_size": 0,
    "disk_min_file_size": 2**30,
    "eviction_policy": "none",
    "cull_limit": 0,
    "size_limit": 2**62,
    "timeout": 5,
}
_NOT_OURS = "A row of the command store is not of its making; it was refused."
_OLDER_STORE = "The store is older than its journal: what was before is not in it."
_PART_OF_ANOTHER = contextlib.nullcontext()
_FULL = "The disk is full: no command is accepted until there is room again."


class _BytesDisk(Disk):  # type: ignore[misc]
    """Keeps bytes under keys of text and refuses all else, so that nothing read from the disk is ever unpickled.

    diskcache unpickles keys as well as values, and removes the files that rows name: no row of ours names one.
    """

    def get(self, key: Any, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            raise StoreError(_NOT_OURS)
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if not isinstance(value, bytes) or read:
            raise StoreError("Only bytes may be stored.")
        return 0, RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if mode != RAW or filename is not None or not isinstance(value, bytes):
            raise StoreError(_NOT_OURS)
        return value

    def remove(self, file_path: str) -> None:
        """Leave the file alone."""


class DiskCommandStore:
    """The CommandStore of consumer.ports in `directory`, which no second process may open.

    `damage` says in one sentence what was wrong with the store that was found, or is None.
    """

    def __init__(
        self,
        cache: Cache,
        lock: int,
        ballast: Ballast,
        epochs: Epochs,
        damage: str | None,
        now: Callable[[], datetime],
    ) -> None:
        self.damage = damage
        self._now = now
        self._cache = cache
        self._lock = lock
        self._is_open = True
        self._ballast = ballast
        self._epochs = epochs
        self._is_in_transaction = False
        self._load()
        self.damage = damage or self._journal.damage
        self._full = not self._ballast.trim()

    @classmethod
    def open(cls, directory: Path, *, now: Callable[[], datetime], enrolment_id: str | None = None) -> Self:
        """Open or make the store; a damaged one is set aside and a new store_generation begun.

        `enrolment_id` is that of the enrolment that the agent lives by. Raises StateDirectoryInUse when another process
        holds it, ExposedError when other users could write to the directory, StoreError when it cannot be used, or when
        it was lost with all that says which commands of this enrolment are old ones.
        """
        try:
            make_private(directory)
            lock = take_lock(directory / "lock")
        except OSError as error:
            raise StoreError(f"The state directory {directory} cannot be used: {error.strerror}.") from error
        try:
            epochs = Epochs(directory, enrolment_id)
            opened = cls._open_or_begin(directory / "commands", directory / "store-made", lock, now, epochs)
            opened.remember_epoch()
            (directory / "store-made").touch()
            sync_directory(directory)
        except BaseException:
            os.close(lock)
            raise
        return opened

    @classmethod
    def _open_or_begin(cls, store: Path, marker: Path, lock: int, now: Callable[[], datetime], epochs: Epochs) -> Self:
        damage = _damage_of(store, expected=marker.exists())
        if damage is None:
            try:
                return cls._open_at(store, lock, None, now, epochs)
            except StoreError as error:
                damage = f"The command store was damaged; a new one was begun. {error}"
        epochs.refuse_unknown()
        if store.exists():
            aside = store.with_name(f"commands.damaged-{now():%Y%m%dT%H%M%S.%f}")
            store.rename(aside)
            damage += f" It was set aside as {aside.name}."
        return cls._open_at(store, lock, damage, now, epochs)

    @classmethod
    def _open_at(cls, store: Path, lock: int, damage: str | None, now: Callable[[], datetime], epochs: Epochs) -> Self:
        cache = Cache(str(store), disk=_BytesDisk, **_SETTINGS)
        try:
            if SENTINEL not in cache:
                _begin(cache, epochs.latest, damage, now)
            return cls(cache, lock, Ballast(store.with_name("ballast")), epochs, damage, now)
        except BaseException:
            cache.close()
            raise

    def _load(self) -> None:
        self._pending: dict[str, str] = {}
        self._processing: dict[str, Begun] = {}
        self._done: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._tombstones: dict[str, datetime] = {}
        self._deleted: dict[str, Deleted] = {}
        self._cancels: dict[str, datetime] = {}
        self.store_generation = self._read(GENERATION, bytes.decode)
        head = self._read(HEAD, decode_head)
        self._arrival, self.last_sequence, self.closed_epoch = head.arrival, head.last_sequence, head.closed_epoch
        self.heard_time = head.heard_time
        self._head_changed = False
        keys = sorted(self._cache.iterkeys())
        results = {key[2:] for key in keys if key.startswith(RESULT)}
        for key in keys:
            if key.startswith(COMMAND):
                self._index(key, head, results)
            elif key.startswith(DELETED):
                self._bury(key, self._read(key, decode_deleted))
            elif key.startswith(CANCEL):
                self._cancels[key[2:]] = self._read(key, _decode_time)
        self._load_journal(head, keys)

    def _load_journal(self, head: Head, keys: Iterable[str]) -> None:
        firsts = [first for first in map(page_number, keys) if first]
        opened = Opened(self.store_generation, len(self._keys), _OLDER_STORE)
        self._journal = Journal(self._cache, head.journal, firsts, self._now, opened)

    def _index(self, key: str, head: Head, results: set[str]) -> None:
        command_id = self._arrived(key).command.id
        self._keys[command_id] = key
        if command_id in results:
            self._done[key] = command_id
        elif key in head.processing:
            self._processing[key] = head.processing[key]
        else:
            self._pending[key] = command_id

    def _bury(self, key: str, deleted: Deleted) -> None:
        self._deleted[key] = deleted
        self._tombstones.update(dict.fromkeys(deleted.command_ids, deleted.expires_at))

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything inside together; when it raises, disk and memory are as before."""
        return _PART_OF_ANOTHER if self._is_in_transaction else self._transaction()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._check_open()
        self._full = not self._ballast.trim()
        self._is_in_transaction = True
        try:
            with self._cache.transact(retry=True):
                yield
                self._write_head()
        except sqlite3.Error as error:
            self._load()
            raise _as_store_error(error) from error
        except BaseException:
            self._load()
            raise
        finally:
            self._is_in_transaction = False

    def _write_head(self) -> None:
        if self._journal.flush() or self._head_changed:
            self.remember_epoch()
            head = Head(
                self._arrival,
                self.last_sequence,
                self.closed_epoch,
                self._processing,
                self._journal.tail,
                self.heard_time,
            )
            self._cache.set(HEAD, encode(head))
            self._head_changed = False

    def remember_epoch(self) -> None:
        """Keep the latest epoch outside the store as well; raises StoreError."""
        last = self.last_sequence
        self._epochs.keep(max(self.closed_epoch, last.epoch if last else 0))

    def _arrived(self, key: str) -> Arrived:
        return self._read(key, decode_arrived)

    def _check_open(self) -> None:
        # diskcache would open the files again, though another process may have them by now.
        if not self._is_open:
            raise StoreError("The command store is closed.")

    def _read(self, key: str, decode: Callable[[bytes], _T]) -> _T:
        self._check_open()
        try:
            return decode(self._cache[key])
        except (sqlite3.Error, KeyError, ValueError, msgspec.DecodeError) as error:
            raise StoreError(f"The row {key} of the command store cannot be read: {error}.") from error

    def _stored(self, key: str) -> StoredCommand:
        result = self._read(RESULT + self._done[key], decode_result) if key in self._done else None
        return assemble(key, self._arrived(key), self._processing.get(key), result)

    def save_time_sample(self, heard: TimeSample) -> None:
        """Keep what time it is by what the server has signed."""
        with self.transaction():
            self.heard_time = heard
            self._head_changed = True

    def store_command(self, command: Command, received_at: datetime, signed_by: tuple[str, ...] = ()) -> StoredCommand:
        """Append a pending command; advances last_sequence if the command has a sequence."""
        with self.transaction():
            if self._full:
                raise StoreFull(_FULL)
            self._arrival += 1
            self._head_changed = True
            key = f"{COMMAND}{self._arrival:016d}"
            if not self._cache.add(key, encode(Arrived(command, received_at, signed_by))):
                raise StoreError(f"The key {key} is taken.")
            self._pending[key] = command.id
            self._keys[command.id] = key
            if command.sequence is not None:
                self.last_sequence = command.sequence
            self._journal.accepted(command)
            return StoredCommand(key, command, State.PENDING, received_at, signed_by=signed_by)

    def advance_sequence(self, sequence: SequenceNumber) -> None:
        """Move last_sequence on without storing a command."""
        with self.transaction():
            self.last_sequence = sequence
            self._head_changed = True

    def find(self, command_id: str) -> StoredCommand | None:
        """Return the live command with this id."""
        key = self._keys.get(command_id)
        return self._stored(key) if key else None

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        """Return what is left of a deleted command."""
        expires_at = self._tombstones.get(command_id)
        return Tombstone(self._read(RESULT + command_id, decode_result), expires_at) if expires_at else None

    def find_id(self, prefix: str) -> str | None:
        """Return the id, live or deleted, that starts with `prefix`."""
        ids = (name for known in (self._keys, self._tombstones) for name in known)
        return next((name for name in ids if name.startswith(prefix)), None)

    def get_next_commands(self, limit: int) -> Iterator[StoredCommand]:
        """Yield the commands that are pending now, oldest first, at most `limit`; each is read when it is asked for."""
        return map(self._stored, list(islice(self._pending, limit)))

    def in_processing(self) -> list[StoredCommand]:
        """Return the commands found in processing, in order."""
        return [self._stored(key) for key in self._processing]

    def with_results(self) -> list[StoredCommand]:
        """Return the done commands, in order."""
        return [self._stored(key) for key in sorted(self._done)]

    def all_commands(self) -> list[StoredCommand]:
        """Return every live command in order."""
        return [self._stored(key) for key in sorted(self._keys.values())]

    def mark_processing(self, stored: StoredCommand, started_at: datetime, incarnation: str) -> StoredCommand:
        """Turn a pending command into processing."""
        with self.transaction():
            if self._pending.pop(stored.key, None) is None:
                raise StoreError(f"The command {stored.command.id} is not pending.")
            begun = self._processing[stored.key] = Begun(started_at, incarnation)
            self._head_changed = True
            self._journal.begun(stored.command.id, incarnation)
            return assemble(stored.key, stored, begun, None)

    def mark_resumed(self, stored: StoredCommand, incarnation: str) -> None:
        """Note that a command found in processing runs again."""
        if stored.key not in self._processing:
            raise StoreError(f"The command {stored.command.id} is not in processing.")
        with self.transaction():
            self._journal.resumed(stored.command.id, incarnation)

    def mark_completed(self, stored: StoredCommand, result: Feedback) -> StoredCommand:
        """Turn a pending or processing command into done; a result is never replaced by another."""
        key, command_id = stored.key, stored.command.id
        if self._keys.get(command_id) != key or key in self._done:
            raise StoreError(f"The command {command_id} has its result already.")
        with self.transaction():
            self._cache.set(RESULT + command_id, encode(result))
            self._pending.pop(key, None)
            self._head_changed |= self._processing.pop(key, None) is not None
            self._done[key] = command_id
            self._journal.reported(command_id, result)
            return assemble(key, stored, None, result)

    def delete_completed_commands(self, command_ids: Sequence[str], tombstones_expire_at: datetime) -> None:
        """Delete done commands, leaving a tombstone for each."""
        if not command_ids:
            return
        with self.transaction():
            for command_id in command_ids:
                key = self._keys.get(command_id, "")
                if self._done.pop(key, None) is None:
                    raise StoreError(f"The command {command_id} has no result yet and cannot be deleted.")
                self._cache.delete(key)
                del self._keys[command_id]
                self._journal.deleted(command_id)
            deleted = Deleted(list(command_ids), tombstones_expire_at)
            last = next(reversed(self._deleted), f"{DELETED}{0:016d}")
            key = f"{DELETED}{int(last[2:]) + 1:016d}"
            self._cache.set(key, encode(deleted))
            self._bury(key, deleted)

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        """Keep a cancel of a command that has not arrived or not begun."""
        with self.transaction():
            self._cache.set(CANCEL + command_id, expires_at.isoformat().encode())
            self._cancels[command_id] = expires_at

    def is_cancelled(self, command_id: str) -> bool:
        """Say whether a cancel for this id was remembered."""
        return command_id in self._cancels

    def drop_expired(self, now: datetime) -> int:
        """Delete expired tombstones and cancels; return how many."""
        graves = [key for key, deleted in self._deleted.items() if deleted.expires_at <= now]
        cancels = [command_id for command_id, expires_at in self._cancels.items() if expires_at <= now]
        dropped = len(cancels)
        with self.transaction():
            for key in graves:
                self._cache.delete(key)
                for command_id in self._deleted.pop(key).command_ids:
                    self._cache.delete(RESULT + command_id)
                    del self._tombstones[command_id]
                    dropped += 1
            for command_id in cancels:
                self._cache.delete(CANCEL + command_id)
                del self._cancels[command_id]
        return dropped

    def check(self) -> None:
        """Commit a row that has no meaning; raises StoreFull where a command would be refused."""
        with self.transaction():
            if self._full:
                raise StoreFull(_FULL)
            self._cache.set(CHECK, b"1")

    def pending_count(self) -> int:
        """Return how many commands wait for their turn or run."""
        return len(self._pending) + len(self._processing)

    def done_count(self) -> int:
        """Return how many results wait for their ack."""
        return len(self._done)

    @property
    def audit_head(self) -> JournalMark | None:
        """Where the journal ends on the disk; None before its first entry."""
        head = self._journal.tail.head
        return head if head.number else None

    def close(self) -> None:
        """Release the files and the lock."""
        self._cache.close()
        os.close(self._lock)
        self._is_open = False


def _begin(cache: Cache, closed_epoch: int, damage: str | None, now: Callable[[], datetime]) -> None:
    generation = uuid.uuid4().hex
    with cache.transact():
        journal = Journal(cache, JournalTail(), (), now, Opened(generation, 0, damage))
        journal.flush()
        cache.set(GENERATION, generation.encode())
        cache.set(HEAD, encode(Head(closed_epoch=closed_epoch, journal=journal.tail)))
        cache.set(SENTINEL, b"1")


def _decode_time(value: bytes) -> datetime:
    return datetime.fromisoformat(value.decode())


def _as_store_error(error: sqlite3.Error) -> StoreError:
    if "full" in str(error):
        return StoreFull(_FULL)
    return StoreError(f"The command store failed: {error}.")


def _is_strange(key: str, value: Any) -> bool:
    """Whether a setting in the file is none of diskcache's, which would use it as a pragma or argument unseen."""
    if key in _SETTINGS or key in METADATA:
        return False
    return key not in DEFAULT_SETTINGS or not isinstance(value, int)


def _damage_of(store: Path, *, expected: bool) -> str | None:
    database = store / "cache.db"
    if not database.exists():
        return "The command store had vanished; a new one was begun." if expected else None
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            sound = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            sentinel = connection.execute("SELECT 1 FROM Cache WHERE key = ?", (SENTINEL,)).fetchone()
            settings = connection.execute("SELECT key, value FROM Settings").fetchall()
    except sqlite3.Error as error:
        return f"The command store was damaged ({error}); a new one was begun."
    if not sound or sentinel is None or any(_is_strange(*setting) for setting in settings):
        return "The command store was damaged; a new one was begun."
    return None
