"""An agent's state directory: private, one owner, durable names, and room for the day when the disk is full."""

import contextlib
import hashlib
import os
from pathlib import Path

from broker.system.files import free_bytes, write_durably
from broker.system.lock import acquire_lock
from broker.system.permissions import refuse_changeable
from consumer.errors import StateDirectoryInUse, StoreError

__all__ = [
    "Ballast",
    "EpochFile",
    "Epochs",
    "epoch_name",
    "make_private",
    "refuse_exposed",
    "take_lock",
]


_BALLAST_BYTES = 1 << 20


def make_private(directory: Path) -> None:
    """Make the directory, or take the one that is there, for this user alone; raises ExposedFileError and OSError.

    What others could only read is closed to them: it holds nothing of theirs. What they could write to is refused.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_changeable(directory)
    directory.chmod(0o700)


def refuse_exposed(directory: Path, *, reading: bool = False) -> None:
    """Raise ExposedFileError if others could write to the directory, where it is there.

    For `reading` it may be another user's, as when root looks at the agent's queue. Raises StoreError when it cannot be
    looked at.
    """
    try:
        if directory.exists():
            refuse_changeable(directory, owners=[directory.stat().st_uid] if reading else [])
    except OSError as error:
        raise StoreError(
            f"The state directory {directory} cannot be used: {error.strerror}.", code="state_directory_unusable"
        ) from error


class Ballast:
    """A file of 1 MiB that is given up when the disk is full, so that reporting and deleting go on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_there = path.exists()

    def trim(self) -> bool:
        """Give the file up, or make it again, as the room on the disk asks; return whether there is room for more.

        Raises StoreError when the directory cannot be looked at.
        """
        has_room = self._room() > (2 if self._is_there else 3) * _BALLAST_BYTES
        if not has_room and self._is_there:
            self._path.unlink(missing_ok=True)
            self._is_there = False
        elif has_room and not self._is_there:
            with contextlib.suppress(OSError), self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _BALLAST_BYTES)
                self._is_there = True
        return has_room

    def _room(self) -> int:
        try:
            return free_bytes(self._path.parent)
        except OSError as error:
            raise StoreError(
                f"The state directory {self._path.parent} cannot be used: {error.strerror}.",
                code="state_directory_unusable",
            ) from error


class EpochFile:
    """One file with the latest epoch. `epoch` is None where it is not there, or is `damaged`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damaged = False
        self.epoch = self._read()

    def _read(self) -> int | None:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.damaged = True
            return None

    def keep(self, epoch: int) -> None:
        """Make a later epoch durable; raises StoreError."""
        if self.epoch is not None and epoch <= self.epoch:
            return
        try:
            write_durably(self._path, str(epoch).encode())
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}.") from error
        self.epoch = epoch


class Epochs:
    """Remembers the latest epoch beside the store, and with the enrolment, for the day when the store is lost.

    What was signed before that day is good for the enrolment still; only its epoch tells that it is old.
    """

    def __init__(self, state: Path, enrolment_id: str | None) -> None:
        self._state = state
        beside = EpochFile(state / "epoch")
        self._enrolled = None if enrolment_id is None else EpochFile(state / "enrolment" / epoch_name(enrolment_id))
        self._files = [beside] if self._enrolled is None else [beside, self._enrolled]

    @property
    def latest(self) -> int:
        """The latest epoch that any of the files knows."""
        return max((file.epoch for file in self._files if file.epoch is not None), default=0)

    def refuse_unknown(self) -> None:
        """Raise StoreError when the agent is enrolled and no file can say which epochs its lost store had seen."""
        if self._enrolled is not None and all(file.epoch is None for file in self._files):
            raise StoreError(
                f"The command store in {self._state} was lost with all that tells old commands from new ones, "
                "so old ones could run again: enroll again.",
                code="epochs_unknown",
            )

    def keep(self, epoch: int) -> None:
        """Make a later epoch durable; raises StoreError."""
        for file in self._files:
            file.keep(epoch)


def epoch_name(enrolment_id: str) -> str:
    """Return the name, below `enrolment/`, of the file with the latest epoch of this enrolment."""
    return f"epoch-{hashlib.sha256(enrolment_id.encode()).hexdigest()[:16]}"


def take_lock(path: Path) -> int:
    """Return the handle of the lock file, held until it is closed; raise StateDirectoryInUse when another has it."""
    try:
        handle = acquire_lock(path)
    except BlockingIOError:
        holder = path.read_text() or "another process"
        raise StateDirectoryInUse(
            f"The state directory {path.parent} is in use by process {holder}; give each agent its own."
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
    return handle
