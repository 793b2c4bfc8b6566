"""The durable record of active responses: one small JSON file for each executable and the keys that it named."""

import contextlib
import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from broker.contract.messages import JsonObject
from broker.system.files import sync_directory, write_durably
from consumer.errors import StoreError

__all__ = [
    "Entry",
    "ResponseRecords",
    "Reversal",
    "read_pending",
]


_log = structlog.get_logger(__name__)
_REMEMBERED = timedelta(days=7)  # how long an offence counts, and a reversed response can be told of


@dataclass(frozen=True)
class Reversal:
    """How an effect is taken back: the message for the script, and when to try. `run` names an attempt that was begun.

    `try_at` None: it failed too often and waits for the agent's next start; `failure` says how the last attempt ended.
    """

    due_at: datetime
    message: JsonObject
    try_at: datetime | None
    run: str | None = None
    attempts: int = 0
    failure: str | None = None


@dataclass(frozen=True)
class Entry:
    """One active response, written before its script is told to continue.

    `command_id` is the last command that began or renewed it, `state` what became of that. `confirmed` says that the
    script ended well, under the boot `boot_id`. Without a `reversal` nothing will be taken back, or has been.
    """

    script: str
    executable: str
    keys: tuple[str, ...]
    command_id: str
    state: Literal["active", "renewed", "done"]
    changed_at: datetime
    boot_id: str
    confirmed: bool = False
    reversal: Reversal | None = None
    reversed_at: datetime | None = None
    offence: int = 1

    @property
    def name(self) -> str:
        """The name of its file; two scripts of the allow-list with one executable share the effects of a key."""
        return _name(self.executable, self.keys)

    @property
    def next_try(self) -> datetime | None:
        """When to take it back, or try again; at once where that was begun already."""
        if self.reversal is None:
            return None
        return self.changed_at if self.reversal.run else self.reversal.try_at


class ResponseRecords:
    """The entries of one agent. Durable: `keep` has fsynced when it returns. Any thread may call any method.

    All raise StoreError when the disk fails. `damaged` names files that could not be read; they were set aside.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._pending: tuple[Entry, ...] | None = None
        self._next_try: datetime | None = None
        self.damaged: list[str] = []
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._entries = {entry.name: entry for entry in self._load()}
        except OSError as error:
            raise StoreError(f"{directory} cannot be used: {error.strerror}.") from error

    def find(self, executable: str, keys: tuple[str, ...]) -> Entry | None:
        """Return what is known of an executable and the keys that it named."""
        with self._lock:
            return self._entries.get(_name(executable, keys))

    def of_command(self, command_id: str) -> Entry | None:
        """Return what a command has begun or renewed, unless a later one has renewed it."""
        with self._lock:
            return next((entry for entry in self._entries.values() if entry.command_id == command_id), None)

    def pending(self) -> tuple[Entry, ...]:
        """Return the entries that will be taken back, the soonest first; the same object until one changes."""
        with self._lock:
            if self._pending is None:
                self._pending = _soonest_first(self._entries.values())
                self._next_try = min((at for entry in self._pending if (at := entry.next_try)), default=None)
            return self._pending

    def next_try(self) -> datetime | None:
        """Return when something must be taken back next; None when nothing is known to be."""
        self.pending()
        return self._next_try

    def keep(self, entry: Entry) -> Entry:
        """Make the entry durable in place of what was known of its keys; return it."""
        path = self._directory / f"{entry.name}.json"
        try:
            write_durably(path, msgspec.json.encode(entry))
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
        with self._lock:
            self._entries[entry.name] = entry
            self._pending = None
        return entry

    def forget_old(self, now: datetime) -> None:
        """Drop what was changed last 7 days ago and waits for nothing."""
        with self._lock:
            old = [it for it in self._entries.values() if not it.reversal and it.changed_at + _REMEMBERED < now]
            for entry in old:
                with contextlib.suppress(OSError):  # it comes again at the next start, and is forgotten then
                    (self._directory / f"{entry.name}.json").unlink(missing_ok=True)
                del self._entries[entry.name]

    def _load(self) -> Iterator[Entry]:
        for path in sorted(self._directory.glob("*.json")):
            try:
                yield _read(path)
            except msgspec.DecodeError as error:
                _log.error("active_response_damaged", file=str(path), reason=str(error))
                path.rename(path.with_suffix(".damaged"))
                sync_directory(self._directory)
                self.damaged.append(path.with_suffix(".damaged").name)


def read_pending(directory: Path) -> tuple[Entry, ...]:
    """Return what will be taken back, from the files of an agent that may be running; raise StoreError."""
    entries = []
    try:
        for path in directory.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # forgotten in this moment
                entries.append(_read(path))
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"The active responses in {directory} cannot be read: {error}.") from error
    return _soonest_first(entries)


def _read(path: Path) -> Entry:
    return msgspec.json.decode(path.read_bytes(), type=Entry)


def _name(executable: str, keys: tuple[str, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode([executable, *keys])).hexdigest()[:40]


def _soonest_first(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    waiting = [(entry.reversal.due_at, entry.name, entry) for entry in entries if entry.reversal]
    return tuple(entry for _, _, entry in sorted(waiting, key=lambda row: row[:2]))
