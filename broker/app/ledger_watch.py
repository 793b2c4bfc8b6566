"""Ends the server's wait for messages when the ledger has changed."""

import contextlib
import os
import select
from collections.abc import Callable
from threading import Thread

from broker.ledger.changes import Changes

__all__ = [
    "LedgerWatch",
]


class LedgerWatch:
    """Calls `wake` once after `arm`, from a thread of its own, when it is time to look at `changes`.

    The thread does nothing else, and sleeps while it is not armed: what the server itself commits wakes nothing.
    """

    def __init__(self, changes: Changes, wake: Callable[[], None]) -> None:
        self._changes = changes
        self._wake = wake
        self._waits = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._waits.register(self._end, select.EPOLLIN)
        self._thread: Thread | None = None

    def arm(self) -> None:
        """Wake once from now on. Without a thread to be had, nothing wakes; the next call tries again."""
        descriptor = self._changes.fileno()
        if descriptor is None:
            return
        if self._thread is None:
            self._start()
        once = select.EPOLLIN | select.EPOLLONESHOT
        try:
            self._waits.modify(descriptor, once)
        except FileNotFoundError:  # it is new; the kernel has forgotten one that was closed
            self._waits.register(descriptor, once)

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._end, 1)
        if self._thread is not None:
            self._thread.join()
        self._waits.close()
        os.close(self._end)

    def _start(self) -> None:
        thread = Thread(target=self._run, name="ledger-watch", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while all(descriptor != self._end for descriptor, _ in self._waits.poll()):
            self._wake()
