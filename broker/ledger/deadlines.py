"""Ends what takes too long: one thread for all limits of a process, which sleeps until the first of them is over."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Thread, current_thread
from time import monotonic

__all__ = [
    "Deadlines",
]


class Deadlines:
    """Calls `overdue` for each block that lasts longer than its limit, from a thread of its own.

    A thread for each block would take longer to start than a short transaction lasts. A limit that ends later than
    those before wakes no thread, and one that was kept is forgotten without one.
    """

    def __init__(self, overdue: Callable[[], None]) -> None:
        self._overdue = overdue
        self._changed = Condition()
        self._ends: dict[object, float] = {}
        self._wakes_at = math.inf
        self._thread: Thread | None = None

    @contextmanager
    def limit(self, limit_s: float) -> Iterator[None]:
        """Call `overdue` unless the block ends within `limit_s` seconds.

        Raises RuntimeError if the machine has no thread for it.
        """
        block, end = object(), monotonic() + limit_s
        with self._changed:
            self._start()
            self._ends[block] = end
            if end < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._ends.pop(block, None)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._thread = None
            self._changed.notify()

    def _start(self) -> None:
        if self._thread is None:
            thread = Thread(target=self._watch, name="deadlines", daemon=True)
            thread.start()
            self._thread = thread

    def _watch(self) -> None:
        with self._changed:
            while self._thread is current_thread():
                now = monotonic()
                late = [block for block, end in self._ends.items() if end <= now]
                for block in late:
                    del self._ends[block]
                    self._overdue()
                self._wakes_at = min(self._ends.values(), default=math.inf)
                self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)
