"""An agent's state directory: private, one owner, durable names, and room for the day when the disk is full."""

import contextlib
import fcntl
import os
from pathlib import Path

from consumer.errors import StateDirectoryInUse, StoreError
from consumer.files import free_bytes, write_durably
from consumer.guard import refuse_changeable

__all__ = ["Ballast", "EpochFile", "make_private", "refuse_exposed", "take_lock"]

_BALLAST_BYTES = 1 << 20


def make_private(directory: Path) -> None:
    """Make the directory, or take the one that is there, for this user alone; raises ExposedError and OSError.

    What others could only read is closed to them: it holds nothing of theirs. What they could write to is refused.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_changeable(directory)
    directory.chmod(0o700)


def refuse_exposed(directory: Path, *, reading: bool = False) -> None:
    """Raise ExposedError if others could write to the directory, where it is there.

    For `reading` it may be another user's, as when root looks at the agent's queue. Raises StoreError when it cannot be
    looked at.
    """
    try:
        if directory.exists():
            refuse_changeable(directory, owners=[directory.stat().st_uid] if reading else [])
    except OSError as error:
        raise StoreError(f"The state directory {directory} cannot be used: {error.strerror}.") from error


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
            raise StoreError(f"The state directory {self._path.parent} cannot be used: {error.strerror}.") from error


class EpochFile:
    """Remembers the latest epoch beside the store, for the day when the store is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epoch = self._read()

    def _read(self) -> int:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def keep(self, epoch: int) -> None:
        """Make a later epoch durable; raises StoreError."""
        if epoch <= self.epoch:
            return
        try:
            write_durably(self._path, str(epoch).encode())
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}.") from error
        self.epoch = epoch


def take_lock(path: Path) -> int:
    """Return the handle of the lock file, held until it is closed; raise StateDirectoryInUse when another has it."""
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
