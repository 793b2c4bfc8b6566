"""Durable files: written to a temporary file beside the target, fsynced, then renamed, so a power loss is harmless."""

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "free_bytes",
    "has_free_names",
    "inodes_named",
    "keep_owner",
    "link_durably",
    "replacing",
    "resolved",
    "set_damaged_aside",
    "state_of",
    "sync_directory",
    "sync_file",
    "write_durably",
    "write_for_readers",
]


_NO_INODES = "No inodes left on device (df -i)"


def write_durably(
    path: Path, content: bytes, mode: int = 0o600, *, as_directory: bool = False, owned_like: Path | None = None
) -> None:
    """Replace the file by one with this content and mode, atomically; raises OSError, leaving no temporary file.

    Several processes may do so at once; the last one wins. The new file keeps the owner of the old one, or gets that of
    `owned_like`, where this process is allowed to set it. `as_directory` gives it to the owner of its directory
    instead, for root writing on behalf of another user.
    """
    with _new_content(path, content, mode) as handle:
        keep_owner(handle, owned_like or path)
        if as_directory:
            _set_owner(handle, path.parent.stat())
        os.fsync(handle)
    sync_directory(path.parent)


def write_for_readers(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file as above, but without waiting for the disk: after a power loss it may be old, empty or missing.

    For what another program may look at, and this one never needs again.
    """
    with _new_content(path, content, mode):
        pass


@contextlib.contextmanager
def _new_content(path: Path, content: bytes, mode: int) -> Iterator[int]:
    """Yield the descriptor of a new file with this content, which becomes `path` after the block."""
    with inodes_named(path.parent):
        part, handle = _new_part(path)
    with _removed_if_it_fails(part), open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        yield file.fileno()
        part.replace(path)  # while the part is locked


def link_durably(link: Path, target: str) -> None:
    """Point the symbolic link at `target` atomically (rename(2)), creating the link if needed; raises OSError."""
    with inodes_named(link.parent), replacing(link) as part:
        part.symlink_to(target)


def set_damaged_aside(path: Path) -> Path:
    """Rename what is damaged to `*.damaged`, where it can be looked at, and return that path; raises OSError.

    A file that was set aside earlier is replaced.
    """
    aside = path.with_suffix(".damaged")
    path.rename(aside)
    sync_directory(path.parent)
    return aside


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which becomes `path` if the block succeeds and is deleted if it fails."""
    part = _part_of(path)
    if not _removed(part):
        part = _other_part_of(path)
    with _removed_if_it_fails(part):
        yield part
        part.replace(path)
    sync_directory(path.parent)


@contextlib.contextmanager
def _removed_if_it_fails(part: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _other_part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}.part")


def _new_part(path: Path) -> tuple[Path, int]:
    """Create a temporary file, and lock it: one that is not locked was left by a crash, and is removed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    part = _part_of(path)
    if _removed_unless_locked(part):
        with contextlib.suppress(FileExistsError):  # of a process that was faster
            handle = os.open(part, flags, 0o600)
            if _lock_if_there(part, handle):
                return part, handle
            os.close(handle)
    part = _other_part_of(path)
    return part, os.open(part, flags, 0o600)


def _removed_unless_locked(part: Path) -> bool:
    """Remove what a crash has left, perhaps with a wider mode; False if another process is writing it."""
    try:
        handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:  # a link, or of another user
        return _removed(part)
    try:
        return _lock_if_there(part, handle) and _removed(part)
    finally:
        os.close(handle)


def _lock_if_there(part: Path, handle: int) -> bool:
    """Lock an open file; False if another process has locked it, or has given its name to another file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(handle), part.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _removed(part: Path) -> bool:
    try:
        part.unlink(missing_ok=True)
    except OSError:  # such as a directory of another user: it must not stop this write
        return False
    return True


def state_of(path: Path) -> tuple[int, int, int] | None:
    """Return a value that changes whenever the file is replaced or written; None if missing. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable (fsync). Raises OSError."""
    _sync(directory, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make the content of a file, which is not a link, durable (fsync). Raises OSError."""
    _sync(path, os.O_NOFOLLOW)


def resolved(path: Path, *, strict: bool = False) -> Path:
    """Return the path without links; raises OSError, also for a link to itself: Python before 3.13 does not there."""
    try:
        return path.resolve(strict=strict)
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error


def free_bytes(directory: Path) -> int:
    """Return how many bytes an unprivileged program may still write to the file system of `directory`."""
    filesystem = os.statvfs(directory)
    return filesystem.f_bavail * filesystem.f_frsize


def has_free_names(directory: Path) -> bool:
    """Return whether the file system can hold two more files (inodes); some do not count them. Raises OSError."""
    filesystem = os.statvfs(directory)
    return not filesystem.f_files or filesystem.f_favail >= 2


@contextlib.contextmanager
def inodes_named(directory: Path) -> Iterator[None]:
    """Let an ENOSPC of the block name inodes if the file system of `directory` lacks those: the usual text is of space,
    of which there may be plenty.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC and _lacks_inodes(directory):
            raise OSError(errno.ENOSPC, _NO_INODES, error.filename) from error
        raise


def _lacks_inodes(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        return not has_free_names(directory)
    return False


def keep_owner(handle: int, path: Path) -> None:
    """Give an open file the owner of the file at `path`, if there is one, where this process is allowed to."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        before = path.stat(follow_symlinks=False)
        os.fchown(handle, before.st_uid, before.st_gid)


def _set_owner(handle: int, to: os.stat_result) -> None:
    if to.st_uid != os.geteuid():
        os.fchown(handle, to.st_uid, to.st_gid)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
