"""A machine that has no thread for a program."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_thread_left"]


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Let each start of a thread fail in the block: its stack would be larger than the address space."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)
