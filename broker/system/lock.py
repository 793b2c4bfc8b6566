"""Exclusive file locks between processes (flock(2)), which end with the process that holds them."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "acquire_lock",
    "is_locked",
    "locked",
    "locked_directory",
]


# `is_locked` holds a lock itself, for some microseconds: that must not keep a program from its start.
_LOOKS_PASS_S = 0.1
_TRY_AGAIN_AFTER_S = 0.002


def acquire_lock(path: Path) -> int:
    """Return a descriptor that holds the lock on a file, which is created if missing (mode 0600).

    The lock is held until the last copy of the descriptor is closed: a child that inherits it keeps it after this
    process has ended. Raises BlockingIOError if another process holds the lock; raises OSError.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _flock_between_looks(handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _flock_between_looks(handle: int) -> None:
    give_up_at = time.monotonic() + _LOOKS_PASS_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise
        time.sleep(_TRY_AGAIN_AFTER_S)


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
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Return whether another process, or another descriptor of this one, holds the lock; False if there is no file.

    Several may look at once, and none of them keeps `acquire_lock` from the lock. Raises OSError.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "It is not a regular file", str(path))
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
