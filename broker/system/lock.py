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
    "locked_directory",
]


def acquire_lock(path: Path) -> int:
    """Return a descriptor that holds the lock on a file, which is created if missing (mode 0600).

    The lock is held until the last copy of the descriptor is closed: a child that inherits it keeps it after this
    process has ended. Raises BlockingIOError if another process holds the lock; raises OSError.
    """
    return _flocked(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock on a file while the block runs; yields the descriptor and raises as `acquire_lock` does."""
    handle = acquire_lock(path)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def locked_directory(path: Path) -> Iterator[int]:
    """Wait for the lock on an existing directory, and hold it while the block runs; yields the descriptor.

    Raises OSError, FileNotFoundError for a missing directory.
    """
    handle = _flocked(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_EX)
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


def _flocked(handle: int, operation: int) -> int:
    """Lock the descriptor and return it; close it on failure."""
    try:
        fcntl.flock(handle, operation)
    except BaseException:
        os.close(handle)
        raise
    return handle
