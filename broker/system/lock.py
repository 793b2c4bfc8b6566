"""Exclusive file locks between processes (flock(2)), which end with the process that holds them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "acquire_lock",
    "is_locked",
    "locked",
]


def acquire_lock(path: Path, *, wait: bool = False) -> int:
    """Return a descriptor that holds the lock on a directory, or on a file that is created if missing (mode 0600).

    The lock is held until the last copy of the descriptor is closed: a child that inherits it keeps it after this
    process has ended. Raises BlockingIOError if another process holds the lock, unless `wait`; raises OSError.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[int]:
    """Hold the lock while the block runs; yields the descriptor and raises as `acquire_lock` does."""
    handle = acquire_lock(path, wait=wait)
    try:
        yield handle
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether another process, or another descriptor of this one, holds the lock; False if there is no file."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
