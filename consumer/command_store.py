"""The command store on diskcache: one durable row a command, in order of arrival, bytes only, one writer."""

import contextlib
import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import msgspec
from diskcache import Cache, Disk

from broker.contract.messages import Command, Feedback, Sequence
from broker.contract.states import State
from consumer.errors import StateDirectoryInUse, StoreError, StoreFull
from consumer.ports import StoredCommand, Tombstone

__all__ = ["DiskCommandStore", "read_queue"]

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
_RAW = 1  # diskcache's mode for bytes kept in the row
_BALLAST_BYTES = 1 << 20
_COMMAND, _TOMBSTONE, _CANCEL, _META = "c/", "t/", "x/", "m/"
_SENTINEL = _META + "sentinel"
_GENERATION = _META + "store_generation"
_ARRIVAL = _META + "arrival"
_LAST = _META + "last_sequence"

_stored_decoder = msgspec.json.Decoder(StoredCommand)
_tombstone_decoder = msgspec.json.Decoder(Tombstone)
_sequence_decoder = msgspec.json.Decoder(Sequence)
_encode = msgspec.json.Encoder().encode


class _BytesDisk(Disk):  # type: ignore[misc]
    """Keeps bytes and refuses all else, so that nothing read from the disk is ever unpickled."""

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if not isinstance(value, bytes) or read:
            raise StoreError("Only bytes may be stored.")
        return 0, _RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if mode != _RAW or filename is not None or not isinstance(value, bytes):
            raise StoreError("A row of the command store is not of its making; it was refused.")
        return value


class DiskCommandStore:
    """The CommandStore of consumer.ports in `directory`, which no second process may open.

    `damage` says in one sentence what was wrong with the store that was found, or is None.
    """

    def __init__(self, cache: Cache, lock: int, ballast: Path, damage: str | None) -> None:
        self.damage = damage
        self._cache = cache
        self._lock = lock
        self._ballast = ballast
        self._depth = 0
        self._load()
        with contextlib.suppress(OSError):
            self._keep_ballast()

    @classmethod
    def open(cls, directory: Path, *, now: Callable[[], datetime]) -> Self:
        """Open or make the store; a damaged one is set aside and a new store_generation begun.

        Raises StateDirectoryInUse when another process holds it, StoreError when the directory cannot be used.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            lock = _take_lock(directory / "lock")
        except OSError as error:
            raise StoreError(f"The state directory {directory} cannot be used: {error.strerror}.") from error
        store, marker = directory / "commands", directory / "store-made"
        damage = _damage_of(store, expected=marker.exists())
        if damage is not None and store.exists():
            aside = directory / f"commands.damaged-{now():%Y%m%dT%H%M%S.%f}"
            store.rename(aside)
            damage += f" It was set aside as {aside.name}."
        cache = Cache(str(store), disk=_BytesDisk, **_SETTINGS)
        if _SENTINEL not in cache:
            with cache.transact():
                cache.set(_GENERATION, uuid.uuid4().hex.encode())
                cache.set(_SENTINEL, b"1")
        marker.touch()
        _sync_directory(directory)
        return cls(cache, lock, directory / "ballast", damage)

    def _load(self) -> None:
        self._states: dict[str, State] = {}
        self._keys: dict[str, str] = {}
        self._tombstones: dict[str, datetime] = {}
        self._cancels: dict[str, datetime] = {}
        self.last_sequence: Sequence | None = None
        for key in self._cache.iterkeys():
            self._index(key)
        self._states = dict(sorted(self._states.items()))
        self.store_generation = self._cache[_GENERATION].decode()
        self._arrival = int(self._cache.get(_ARRIVAL, b"0"))

    def _index(self, key: str) -> None:
        if key.startswith(_COMMAND):
            stored = self._read(key)
            self._states[key] = stored.state
            self._keys[stored.command.id] = key
        elif key.startswith(_TOMBSTONE):
            self._tombstones[key[2:]] = _tombstone_decoder.decode(self._cache[key]).expires_at
        elif key.startswith(_CANCEL):
            self._cancels[key[2:]] = datetime.fromisoformat(self._cache[key].decode())
        elif key == _LAST:
            self.last_sequence = _sequence_decoder.decode(self._cache[key])

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside together; when it raises, disk and memory are as before."""
        if self._depth:
            yield
            return
        self._depth += 1
        try:
            with self._cache.transact(retry=True):
                yield
        except sqlite3.Error as error:
            self._load()
            raise _as_store_error(error) from error
        except BaseException:
            self._load()
            raise
        finally:
            self._depth -= 1

    def _read(self, key: str) -> StoredCommand:
        try:
            return _stored_decoder.decode(self._cache[key])
        except (sqlite3.Error, KeyError, msgspec.DecodeError) as error:
            raise StoreError(f"The row {key} of the command store cannot be read: {error}.") from error

    def _write(self, stored: StoredCommand) -> StoredCommand:
        self._cache.set(stored.key, _encode(stored))
        self._states[stored.key] = stored.state
        return stored

    def store_command(self, command: Command, received_at: datetime) -> StoredCommand:
        """Append a pending command; advances last_sequence if the command has a sequence."""
        with self.transaction():
            self._arrival += 1
            self._cache.set(_ARRIVAL, str(self._arrival).encode())
            stored = StoredCommand(f"{_COMMAND}{self._arrival:016d}", command, State.PENDING, received_at)
            if not self._cache.add(stored.key, _encode(stored)):
                raise StoreError(f"The key {stored.key} is taken.")
            self._states[stored.key] = State.PENDING
            self._keys[command.id] = stored.key
            if command.sequence is not None:
                self.advance_sequence(command.sequence)
            return stored

    def advance_sequence(self, sequence: Sequence) -> None:
        """Move last_sequence on without storing a command."""
        with self.transaction():
            self._cache.set(_LAST, _encode(sequence))
            self.last_sequence = sequence

    def find(self, command_id: str) -> StoredCommand | None:
        """Return the live command with this id."""
        key = self._keys.get(command_id)
        return self._read(key) if key else None

    def find_tombstone(self, command_id: str) -> Tombstone | None:
        """Return what is left of a deleted command."""
        if command_id not in self._tombstones:
            return None
        return _tombstone_decoder.decode(self._cache[_TOMBSTONE + command_id])

    def find_id(self, prefix: str) -> str | None:
        """Return the id, live or deleted, that starts with `prefix`."""
        ids = (name for known in (self._keys, self._tombstones) for name in known)
        return next((name for name in ids if name.startswith(prefix)), None)

    def _in(self, state: State) -> Iterator[StoredCommand]:
        keys = [key for key, value in self._states.items() if value is state]
        return (self._read(key) for key in keys)

    def get_next_command(self) -> StoredCommand | None:
        """Return the oldest pending command."""
        return next(iter(self.get_next_commands(1)), None)

    def get_next_commands(self, limit: int) -> list[StoredCommand]:
        """Return the oldest pending commands in order, at most `limit`."""
        found: list[StoredCommand] = []
        for key, state in self._states.items():
            if len(found) == limit:
                break
            if state is State.PENDING:
                found.append(self._read(key))
        return found

    def in_processing(self) -> list[StoredCommand]:
        """Return the commands found in processing, in order."""
        return list(self._in(State.PROCESSING))

    def with_results(self) -> list[StoredCommand]:
        """Return the done commands, in order."""
        return list(self._in(State.DONE))

    def all_commands(self) -> list[StoredCommand]:
        """Return every live command in order."""
        return [self._read(key) for key in self._states]

    def mark_processing(self, key: str, started_at: datetime, incarnation: str) -> StoredCommand:
        """Turn a pending command into processing."""
        stored = self._read(key)
        if stored.state is not State.PENDING:
            raise StoreError(f"The command {stored.command.id} is {stored.state}, not pending.")
        with self._with_ballast():
            return self._write(replace(stored, state=State.PROCESSING, started_at=started_at, begun_by=incarnation))

    def mark_completed(self, key: str, result: Feedback) -> StoredCommand:
        """Turn a pending or processing command into done; a result is never replaced by another."""
        stored = self._read(key)
        if stored.state is State.DONE:
            raise StoreError(f"The command {stored.command.id} has its result already.")
        with self._with_ballast():
            return self._write(replace(stored, state=State.DONE, result=result))

    def delete_completed_commands(self, keys: Listing[str], tombstones_expire_at: datetime) -> None:
        """Delete done commands, leaving a tombstone for each."""
        with self._with_ballast():
            for key in keys:
                self._delete(key, tombstones_expire_at)
        if not self._depth:
            with contextlib.suppress(OSError):
                self._keep_ballast()

    def _delete(self, key: str, expires_at: datetime) -> None:
        stored = self._read(key)
        if stored.result is None:
            raise StoreError(f"The command {stored.command.id} has no result yet and cannot be deleted.")
        command_id = stored.command.id
        self._cache.set(_TOMBSTONE + command_id, _encode(Tombstone(stored.result, expires_at)))
        self._cache.delete(key)
        del self._states[key], self._keys[command_id]
        self._tombstones[command_id] = expires_at

    def remember_cancel(self, command_id: str, expires_at: datetime) -> None:
        """Keep a cancel of a command that has not arrived or not begun."""
        with self.transaction():
            self._cache.set(_CANCEL + command_id, expires_at.isoformat().encode())
            self._cancels[command_id] = expires_at

    def is_cancelled(self, command_id: str) -> bool:
        """Say whether a cancel for this id was remembered."""
        return command_id in self._cancels

    def drop_expired(self, now: datetime) -> int:
        """Delete expired tombstones and cancels; return how many."""
        dropped = 0
        with self.transaction():
            for kind, known in ((_TOMBSTONE, self._tombstones), (_CANCEL, self._cancels)):
                for name in [name for name, expires_at in known.items() if expires_at <= now]:
                    self._cache.delete(kind + name)
                    del known[name]
                    dropped += 1
        return dropped

    def pending_count(self) -> int:
        """Return how many commands wait for their turn or run."""
        return len(self._states) - self.done_count()

    def done_count(self) -> int:
        """Return how many results wait for their ack."""
        return sum(state is State.DONE for state in self._states.values())

    def close(self) -> None:
        """Release the files and the lock."""
        self._cache.close()
        os.close(self._lock)

    @contextlib.contextmanager
    def _with_ballast(self) -> Iterator[None]:
        """Make room first when the disk is full: reporting and deleting must go on."""
        if not self._depth and not _has_room(self._ballast):
            self._ballast.unlink(missing_ok=True)
        with self.transaction():
            yield

    def _keep_ballast(self) -> None:
        if not self._ballast.exists() and _has_room(self._ballast):
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _BALLAST_BYTES)


def _has_room(path: Path) -> bool:
    room = os.statvfs(path.parent)
    return room.f_bavail * room.f_frsize > 2 * _BALLAST_BYTES


def _as_store_error(error: sqlite3.Error) -> StoreError:
    if "full" in str(error):
        return StoreFull("The disk is full: no command is accepted until there is room again.")
    return StoreError(f"The command store failed: {error}.")


def _take_lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(handle, 20).decode() or "another process"
        os.close(handle)
        raise StateDirectoryInUse(
            f"The state directory {path.parent} is in use by process {holder}; give each agent its own."
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damage_of(store: Path, *, expected: bool) -> str | None:
    database = store / "cache.db"
    if not database.exists():
        return "The command store had vanished; a new one was begun." if expected else None
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            sound = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            sentinel = connection.execute("SELECT 1 FROM Cache WHERE key = ?", (_SENTINEL,)).fetchone()
    except sqlite3.Error as error:
        return f"The command store was damaged ({error}); a new one was begun."
    if not sound or sentinel is None:
        return "The command store was damaged; a new one was begun."
    return None


def read_queue(directory: Path) -> list[StoredCommand]:
    """Return the live commands of a store that an agent may be using; raise StoreError if it cannot be read."""
    database = directory / "commands" / "cache.db"
    query = "SELECT value FROM Cache WHERE key >= 'c/' AND key < 'c0' AND mode = ? ORDER BY key"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
            return [_stored_decoder.decode(bytes(value)) for (value,) in connection.execute(query, (_RAW,))]
    except sqlite3.Error as error:
        raise StoreError(f"The queue in {directory} cannot be read: {error}.") from error
