"""Files whose content and names are there after a power loss: written aside, fsynced, then renamed."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "free_bytes",
    "link_durably",
    "remove_tree",
    "sync_directory",
    "sync_tree",
    "write_durably",
]


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file by one with this content, whole or not at all; raises OSError."""
    with _replacing(path) as part:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def link_durably(link: Path, target: str) -> None:
    """Point the symbolic link at `target` in one step (rename(2)), making the link if need be; raises OSError."""
    with _replacing(link) as part:
        part.unlink(missing_ok=True)
        part.symlink_to(target)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give the name to write aside; it becomes `path` when all went well, and leaves nothing behind when not."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable (fsync)."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(directory: Path) -> None:
    """Make every regular file and every name below a directory durable; links are not followed. Raises OSError."""
    for place, _, files in os.walk(directory, onerror=_fail):
        for name in files:
            path = Path(place, name)
            if stat.S_ISREG(path.lstat().st_mode):
                _sync_file(path)
        sync_directory(Path(place))


def _fail(error: OSError) -> None:
    raise error


def remove_tree(directory: Path) -> None:
    """Remove a directory and all below it; one that is not there is no error."""
    if directory.exists():
        shutil.rmtree(directory)
        sync_directory(directory.parent)


def free_bytes(directory: Path) -> int:
    """Return how many bytes an unprivileged program may still write to the file system of `directory`."""
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
