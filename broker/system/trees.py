"""Trees of files that somebody else may have shaped: of any depth, with links, mounts and directories without access.

Nothing here recurses, follows a link, or needs a path that is longer than one name.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.system.files import sync_directory, sync_file
from broker.text import printable_line

__all__ = [
    "files_below",
    "paths_below",
    "remove_tree",
    "sync_tree",
]


_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_SHOWN_PATH = 300


def paths_below(directory: Path, *, skip_private: bool = False) -> list[Path]:
    """Return everything below a directory, sorted; links are not followed. Raises OSError.

    `skip_private` leaves out what is in directories that this process may not read.
    """
    found = _directories(directory, skip_private=skip_private)
    return sorted(Path(entry.path) for _, entries in found for entry in entries)


def files_below(directory: Path) -> list[Path]:
    """Return the regular files below a directory, sorted; links are not followed. Raises OSError."""
    return sorted(path for _, entries in _directories(directory) for path in _files(entries))


def sync_tree(directory: Path) -> None:
    """Make every regular file and every name below a directory durable; links are not followed. Raises OSError."""
    for place, entries in _directories(directory):
        for path in _files(entries):
            sync_file(path)
        sync_directory(place)


def _directories(top: Path, *, skip_private: bool = False) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Yield each directory with its entries."""
    pending = [top]
    while pending:
        place = pending.pop()
        try:
            with os.scandir(place) as found:
                entries = list(found)
        except PermissionError:
            if not skip_private:
                raise
            continue
        pending += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield place, entries


def _files(entries: Iterable[os.DirEntry[str]]) -> list[Path]:
    return [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a directory with everything below it, durably; it need not exist.

    What is in the way of one entry stops no other: as much as possible is removed, then the first OSError is raised,
    with the path that stays. Directories of this process's user are removed also without permissions; a file system
    that is mounted in one stays as it is.
    """
    try:
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    removal = _Removal(parent, path)
    try:
        removal.run()
    finally:
        removal.close()
    if removal.removed:
        sync_directory(path.parent)
    if removal.first_error is not None:
        raise removal.first_error


@dataclass
class _Level:
    """A directory on the way down: its name, its identity, and the entries that are still to be removed."""

    name: str
    identity: tuple[int, int]
    left: list[tuple[str, bool]]
    """Names, and whether they are directories."""


class _Removal:
    """Removes depth first with one directory open at a time: the way back up is `..`, which is verified."""

    def __init__(self, parent: int, path: Path) -> None:
        self._here = parent
        self._path = path
        self._mount = _mount_of(parent)
        self._levels = [_Level("", _identity(parent), [(path.name, _is_directory(path.name, parent))])]
        self.first_error: OSError | None = None
        self.removed = False

    def close(self) -> None:
        os.close(self._here)

    def run(self) -> None:
        while True:
            left = self._levels[-1].left
            if left:
                name, is_directory = left.pop()
                with self._error_kept(name):
                    self._enter(name) if is_directory else self._unlink(name)
            elif len(self._levels) > 1:
                self._leave()
            else:
                return

    def _unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._here)
        self.removed = True

    def _enter(self, name: str) -> None:
        with _opened(name, self._here) as place:
            if _mount_of(place) != self._mount:
                raise OSError(errno.EBUSY, "another file system is mounted there")
            _let_in(place)
            inside = os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=place)
        self._go_to(inside)
        with os.scandir(inside) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        self._levels.append(_Level(name, _identity(inside), entries))

    def _leave(self) -> None:
        level = self._levels.pop()
        self._go_to(os.open("..", os.O_PATH | _DIRECTORY, dir_fd=self._here))
        if _identity(self._here) != self._levels[-1].identity:
            raise OSError(errno.ESTALE, "a directory was moved while it was removed", str(self._path))
        with self._error_kept(level.name):
            os.rmdir(level.name, dir_fd=self._here)
            self.removed = True

    def _go_to(self, handle: int) -> None:
        os.close(self._here)
        self._here = handle

    @contextmanager
    def _error_kept(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass  # somebody else has removed it
        except OSError as error:
            if self.first_error is None:
                self.first_error = OSError(error.errno, error.strerror, self._shown(name))

    def _shown(self, name: str) -> str:
        inner = [level.name for level in self._levels[1:]]
        return printable_line(str(self._path.parent.joinpath(*inner, name)), _MAX_SHOWN_PATH)


@contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    """Open a directory, also one without permissions, to look at it and to go into it."""
    handle = os.open(name, os.O_PATH | _DIRECTORY, dir_fd=parent)
    try:
        yield handle
    finally:
        os.close(handle)


def _let_in(place: int) -> None:
    """Give the owner all permissions, if that is our user and they are missing: its entries are to be removed."""
    found = os.fstat(place)
    if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        mode = stat.S_IMODE(found.st_mode) | stat.S_IRWXU
        try:
            os.chmod(f"/proc/self/fd/{place}", mode)
        except FileNotFoundError:  # without /proc; this needs the permission to search it
            os.chmod(".", mode, dir_fd=place)


def _is_directory(name: str, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _identity(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def _mount_of(handle: int) -> str:
    """Return what identifies the mount: a bind mount has the device of its source."""
    try:
        with open(f"/proc/self/fdinfo/{handle}") as lines:
            return next(line for line in lines if line.startswith("mnt_id:"))
    except (OSError, StopIteration):  # without /proc
        return str(os.fstat(handle).st_dev)
