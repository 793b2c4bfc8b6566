"""Programs on threads of the tests, and a machine that has no thread for one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

__all__ = ["no_thread_left", "on_a_thread"]


class Program(Protocol):
    """An agent or a server: `run` returns after a call of `stop`."""

    def run(self) -> object: ...

    def stop(self) -> object: ...


_Program = TypeVar("_Program", bound=Program)


@contextmanager
def on_a_thread(program: _Program) -> Iterator[_Program]:
    """Run the program while the block runs."""
    thread = threading.Thread(target=program.run)
    thread.start()
    try:
        yield program
    finally:
        program.stop()
        thread.join(30)
    assert not thread.is_alive()


@contextmanager
def no_thread_left() -> Iterator[None]:
    """Let each start of a thread fail in the block: its stack would be larger than the address space."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)
