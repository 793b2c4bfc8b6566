"""The durable record of active responses: one small JSON file for each executable with the keys that it named."""

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
from broker.system.files import set_damaged_aside, write_durably
from consumer.errors import StoreError

__all__ = [
    "ResponseRecord",
    "ResponseRecords",
    "Reversal",
    "read_pending",
]


_log = structlog.get_logger(__name__)
_RETENTION = timedelta(days=7)  # how long an offence counts, and the result of a reversal can be repeated


@dataclass(frozen=True)
class Reversal:
    """How an effect is reversed: the message for the script, and when to try. `run` names an attempt that was started.

    `try_at` is None if it failed too often: it then waits for the agent's next start. `failure` is how the last attempt
    ended. Within the boot `boot_id`, it is tried `boot_due` seconds after the boot instead of at `try_at`: the wall
    clock may be set.
    """

    due_at: datetime
    message: JsonObject
    try_at: datetime | None
    run: str | None = None
    attempts: int = 0
    failure: str | None = None
    boot_id: str | None = None
    boot_due: float | None = None


@dataclass(frozen=True)
class ResponseRecord:
    """One active response, written before its script receives `continue`.

    `command_id` is the last command that began or renewed it, `state` that command's outcome. `confirmed`: the script
    succeeded, under the boot `boot_id`. Without a `reversal`, there is nothing to reverse, or it has been reversed.
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
        """The name of its file; two allow-list entries with the same executable share the effects of a key."""
        return _name(self.executable, self.keys)


class ResponseRecords:
    """The records of one agent, fsynced when `save` returns. Thread-safe.

    All methods raise StoreError when the disk fails. `damaged` names files that are none, which were renamed,
    `unreadable` those that the disk did not give: they may be good, and are read again at the next start.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._pending: tuple[ResponseRecord, ...] | None = None
        self.damaged: list[str] = []
        self.unreadable: list[str] = []
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._records = {record.name: record for record in self._load()}
        except OSError as error:
            raise StoreError(f"{directory} cannot be used: {error.strerror}.") from error

    def find(self, executable: str, keys: tuple[str, ...]) -> ResponseRecord | None:
        """Return the record of an executable and the keys that it named, or None."""
        with self._lock:
            return self._records.get(_name(executable, keys))

    def find_by_command(self, command_id: str) -> ResponseRecord | None:
        """Return the record that a command began or renewed, unless a later command renewed it."""
        with self._lock:
            return next((record for record in self._records.values() if record.command_id == command_id), None)

    def pending(self) -> tuple[ResponseRecord, ...]:
        """Return the records with a pending reversal, soonest first; the same object until one changes."""
        with self._lock:
            if self._pending is None:
                self._pending = _soonest_first(self._records.values())
            return self._pending

    def save(self, record: ResponseRecord) -> ResponseRecord:
        """Write the record durably, replacing the previous one of its keys; return it."""
        path = self._directory / f"{record.name}.json"
        try:
            write_durably(path, msgspec.json.encode(record))
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}.", code="file_unwritable") from error
        with self._lock:
            self._records[record.name] = record
            self._pending = None
        return record

    def forget_old(self, now: datetime) -> None:
        """Delete records last changed more than 7 days ago that need no reversal."""
        with self._lock:
            old = [each for each in self._records.values() if not each.reversal and each.changed_at + _RETENTION < now]
            for record in old:
                with contextlib.suppress(OSError):  # deleted at the next start
                    (self._directory / f"{record.name}.json").unlink(missing_ok=True)
                del self._records[record.name]

    def _load(self) -> Iterator[ResponseRecord]:
        for path in sorted(self._directory.glob("*.json")):
            try:
                yield _read(path)
            except (IsADirectoryError, ValueError) as error:
                _log.error("active_response_damaged", file=str(path), reason=str(error))
                place = path
                with contextlib.suppress(OSError):  # it is named below, and the agent must start
                    place = set_damaged_aside(path)
                self.damaged.append(place.name)
            except OSError as error:
                _log.error("active_response_unreadable", file=str(path), reason=str(error))
                self.unreadable.append(path.name)


def read_pending(directory: Path) -> tuple[ResponseRecord, ...]:
    """Return the records with a pending reversal, read from an agent's files while it may run; raises StoreError."""
    records = []
    try:
        for path in directory.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
                records.append(_read(path))
    except (OSError, ValueError) as error:
        raise StoreError(f"The active responses in {directory} cannot be read: {error}.") from error
    return _soonest_first(records)


def _read(path: Path) -> ResponseRecord:
    return msgspec.json.decode(path.read_bytes(), type=ResponseRecord)


def _name(executable: str, keys: tuple[str, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode([executable, *keys])).hexdigest()[:40]


def _soonest_first(records: Iterable[ResponseRecord]) -> tuple[ResponseRecord, ...]:
    waiting = [(record.reversal.due_at, record.name, record) for record in records if record.reversal]
    return tuple(record for _, _, record in sorted(waiting, key=lambda row: row[:2]))
