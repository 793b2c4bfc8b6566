"""Work on many items at the same time, for what releases the interpreter's lock, as the check of a signature does."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["SideBySide"]


_T = TypeVar("_T")
_R = TypeVar("_R")
_MOST_HELPERS = 3


class SideBySide:
    """The calling thread and a few helpers, one for each other processor, at most three.

    `spawn` runs a helper on another thread; it may raise RuntimeError if there is none.
    """

    def __init__(self, spawn: Callable[[Callable[[], None]], None], helpers: int | None = None) -> None:
        self._spawn = spawn
        self._helpers = min(_MOST_HELPERS, len(os.sched_getaffinity(0)) - 1) if helpers is None else helpers

    def __call__(self, work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R | None]:
        """Return the result for each item; `work` must not raise, or there is none (None), or its error is raised."""
        results: list[_R | None] = [None] * len(items)
        waiting = deque(enumerate(items))
        ended: SimpleQueue[None] = SimpleQueue()

        def help_out() -> None:
            while waiting:
                try:
                    place, item = waiting.popleft()
                except IndexError:
                    return
                try:
                    results[place] = work(item)
                finally:
                    ended.put(None)

        for _ in range(min(self._helpers, len(items) - 1)):
            try:
                self._spawn(help_out)
            except RuntimeError:
                break  # what the helpers do not do, the caller does
        help_out()
        for _ in items:
            ended.get()
        return results
