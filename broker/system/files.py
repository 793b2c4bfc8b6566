"""Files whose content and names are there after a power loss: written aside, fsynced, then renamed."""

import contextlib
import os
from pathlib import Path

__all__ = [
    "state_of",
    "write_durably",
]


def write_durably(path: Path, content: bytes, mode: int, *, as_directory: bool = False) -> None:
    """Replace the file by one with this content, whole or not at all; raises OSError.

    The new file belongs to whom the old one belonged to, where this process may say so. `as_directory` gives it to the
    owner of its directory instead, where root writes in place of another user.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # left behind by a crash, perhaps with a wider mode
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        _keep_owner(file.fileno(), path)
        os.fchmod(file.fileno(), mode)
        if as_directory:
            _give(file.fileno(), path.parent.stat())
        os.fsync(file.fileno())
    part.replace(path)
    _sync_directory(path.parent)


def state_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever the file is replaced or written; None where there is none. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _keep_owner(handle: int, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        before = path.stat(follow_symlinks=False)
        os.fchown(handle, before.st_uid, before.st_gid)


def _give(handle: int, to: os.stat_result) -> None:
    if to.st_uid != os.geteuid():
        os.fchown(handle, to.st_uid, to.st_gid)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
