"""The files below a directory as they are now: a service may have made, replaced, linked or locked some of them."""

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

__all__ = [
    "NotRegular",
    "hash_of_file",
    "names_below",
    "open_regular",
]


def names_below(directory: Path) -> dict[str, bool]:
    """Return the relative path of each file and link, and of each directory that cannot be read.

    Whether it is a regular file, which may be readable, is in the value; sockets, pipes and devices are not listed.
    """
    found: dict[str, bool] = {}
    pending = [directory]
    while pending:
        place = pending.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        found[_name(Path(entry.path), directory)] = not entry.is_symlink()
        except OSError:
            found[_name(place, directory)] = False
    return found


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def hash_of_file(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal; raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class NotRegular(OSError):
    """What was to be read is a directory, a device or a pipe."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to read it; raises OSError, also for a link, and never waits, as for the writer of a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotRegular(errno.EINVAL, "it is not a regular file", str(path))
    return open(handle, "rb")
