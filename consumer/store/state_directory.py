"""An agent's state directory: private to one user, locked by one process, with a reserve for a full disk."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from broker.contract.topics import AGENT_NAME
from broker.system.files import free_bytes, has_free_names, write_durably
from broker.system.lock import acquire_lock
from broker.system.permissions import refuse_changeable
from consumer.errors import StateDirectoryInUse, StoreError, StoreFull
from consumer.store.damage import DISK_FULL, NO_INODES

__all__ = [
    "LEAST_ROOM_BYTES",
    "STORE_MADE",
    "Ballast",
    "Epochs",
    "claim",
    "epoch_name",
    "make_private",
    "owner_of",
    "refuse_exposed",
    "refuse_other_agent",
    "take_lock",
    "usable",
]


STORE_MADE = "store-made"
"""The file that marks that there was a store."""

_BALLAST_BYTES = 1 << 20
LEAST_ROOM_BYTES = 2 * _BALLAST_BYTES
"""With this much room or less, no command is accepted."""

_OWNER = "agent-name"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def usable(directory: Path) -> Iterator[None]:
    """Turn an OSError of the block into StoreError, or into StoreFull if there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(_lack_of_room(directory)) from error
        place = f"{error.filename}: " if error.filename and str(error.filename) != str(directory) else ""
        raise StoreError(
            f"The state directory {directory} cannot be used: {place}{error.strerror or error}.",
            code="state_directory_unusable",
        ) from error


def _lack_of_room(directory: Path) -> str:
    with contextlib.suppress(OSError):
        return DISK_FULL if has_free_names(directory) else NO_INODES
    return DISK_FULL


def make_private(directory: Path) -> None:
    """Create the directory, or make an existing one private to this user; raises ExposedFileError and OSError.

    Read access of others is removed. A directory that others could write to is refused: it may hold their files.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_changeable(directory)
    directory.chmod(0o700)


def refuse_exposed(directory: Path, *, reading: bool = False) -> None:
    """Raise ExposedFileError if the directory exists and others could write to it.

    With `reading` it may belong to another user, as when root inspects the agent's queue. Raises StoreError if it
    cannot be checked.
    """
    with usable(directory):
        if directory.exists():
            refuse_changeable(directory, owners=[directory.stat().st_uid] if reading else [])


# design.md: "A state directory belongs to one agent name"
def claim(directory: Path, agent: str) -> None:
    """Record that the directory belongs to this agent, durably; raises as `refuse_other_agent` does.

    A directory of an earlier version, which has no record, is taken for that of `agent`.
    """
    if not refuse_other_agent(directory, agent):
        write_durably(directory / _OWNER, agent.encode())


def refuse_other_agent(directory: Path, agent: str) -> bool:
    """Raise StoreError if the directory belongs to another agent; return whether it belongs to this one.

    Raises OSError if that cannot be determined.
    """
    owner = owner_of(directory)
    if owner not in (None, agent):
        raise StoreError(
            f"The state directory {directory} belongs to the agent {owner}, whose commands {agent} must not run: "
            f"give {agent} its own directory.",
            code="state_directory_of_another_agent",
        )
    return owner == agent


def owner_of(directory: Path) -> str | None:
    """Return the name of the agent that the directory belongs to; None if that is not recorded. Raises OSError."""
    try:
        owner = (directory / _OWNER).read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    return owner if AGENT_NAME.fullmatch(owner) else None


class Ballast:
    """A file of 1 MiB that is deleted when the disk is full, so that results can still be stored and deleted.

    A quota is not in the free space of the file system, so the file is also the measure: there is no room where it
    cannot be made. One that exists is made again by the first `trim`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exists = False

    def trim(self) -> bool:
        """Delete or recreate the file, depending on the free space; return whether there is space for commands.

        Raises StoreError if the free space cannot be determined.
        """
        # design.md: "A full disk stops new commands, not the reporting of old ones"
        has_room = self._room() > (2 if self._exists else 3) * _BALLAST_BYTES
        if not has_room and self._exists:
            self.release()
        elif has_room and not self._exists:
            has_room = self._make()
        return has_room

    def _make(self) -> bool:
        """Create the file, with twice its size of room beside it; return whether there is that room."""
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 3 * _BALLAST_BYTES)
                file.truncate(_BALLAST_BYTES)
            self._exists = True
        except OSError as error:
            self.release()
            return error.errno not in _NO_ROOM
        return True

    def release(self) -> None:
        """Delete the file, so that there is room for results; raises StoreError."""
        with usable(self._path.parent):
            self._path.unlink(missing_ok=True)
        self._exists = False

    def release_for_opening(self) -> None:
        """Delete the file if the file system has no room for the files that opening the store creates."""
        if not self.trim() or not has_free_names(self._path.parent):
            self.release()

    def after_failure(self, error: StoreError) -> None:
        """Delete the file if the store failed for want of room, which SQLite does not call so for a quota (EDQUOT).

        Raises StoreFull then.
        """
        if error.code == "store_failed" or isinstance(error, StoreFull):
            self.release()
        if error.code != "store_failed":
            return
        lack = _lack_of_room(self._path.parent)  # of which SQLite says that a file cannot be opened
        if lack == NO_INODES or not self.trim():
            raise StoreFull(lack) from error

    def _room(self) -> int:
        with usable(self._path.parent):
            return free_bytes(self._path.parent)


class _EpochFile:
    """A file with the latest epoch. `epoch` is None if the file is missing or damaged. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epoch = self._read()

    def _read(self) -> int | None:
        try:
            return int(self._path.read_text(encoding="ascii"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def keep(self, epoch: int) -> None:
        """Store a later epoch durably; raises StoreError, and StoreFull if there is no room."""
        if self.epoch is not None and epoch <= self.epoch:
            return
        with usable(self._path.parent):
            write_durably(self._path, str(epoch).encode())
        self.epoch = epoch


class Epochs:
    """The latest epoch, stored beside the command store and with the enrolment, in case the command store is lost.

    Commands signed before the loss are still valid for the enrolment; only their epoch shows that they are old.
    Raises OSError if a file cannot be read now.
    """

    def __init__(self, state: Path, enrolment_id: str | None) -> None:
        self._state = state
        beside = _EpochFile(state / "epoch")
        self._enrolled = None if enrolment_id is None else _EpochFile(state / "enrolment" / epoch_name(enrolment_id))
        self._files = [beside] if self._enrolled is None else [beside, self._enrolled]

    @property
    def latest(self) -> int:
        """The latest epoch in any of the files; 0 if there is none."""
        return max((file.epoch for file in self._files if file.epoch is not None), default=0)

    def refuse_unknown(self) -> None:
        """Raise StoreError if the agent is enrolled and no file shows which epochs its lost store had seen."""
        if self._enrolled is not None and all(file.epoch is None for file in self._files):
            raise StoreError(
                f"The command store in {self._state} was lost with all records of its epochs, "
                "so old commands could run again: enroll again.",
                code="epochs_unknown",
            )

    def keep(self, epoch: int) -> None:
        """Store a later epoch durably; raises StoreError and StoreFull."""
        for file in self._files:
            file.keep(epoch)


def epoch_name(enrolment_id: str) -> str:
    """Return the name, below `enrolment/`, of the file with the latest epoch of this enrolment."""
    return f"epoch-{hashlib.sha256(enrolment_id.encode()).hexdigest()[:16]}"


def take_lock(path: Path) -> int:
    """Return the handle of the lock file, held until it is closed; raises StateDirectoryInUse and OSError."""
    try:
        handle = acquire_lock(path)
    except BlockingIOError:
        holder = path.read_text(errors="replace") or "another process"
        raise StateDirectoryInUse(
            f"The state directory {path.parent} is in use by process {holder}; give each agent its own directory."
        ) from None
    with contextlib.suppress(OSError):  # a full disk: the id is for people
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
    return handle
