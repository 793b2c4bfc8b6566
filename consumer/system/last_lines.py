"""Passes a child's stderr on to our own, and keeps its end for a result."""

import contextlib
import errno
import os

from broker.contract.secret_shapes import mask_shapes
from broker.system.threads import start_thread

__all__ = ["LastLines"]


_BLOCK_BYTES = 1 << 16
_KEPT_BYTES = 4096
_STDERR = 2
_END_TIMEOUT_S = 1.0  # a process that the child left running may hold the pipe open


class LastLines:
    """Reads a pipe to its end on a thread of its own.

    `pipe` is the end for the child; call `close` when the child has it. Raises OSError, also if the machine has no
    thread now: then the child must not start, since nothing would read what it writes.
    """

    def __init__(self) -> None:
        self._read_end, self.pipe = os.pipe2(os.O_CLOEXEC)
        self._kept = b""
        thread = start_thread(self._pass_on, "acm-stderr")
        if thread is None:
            self.close()
            os.close(self._read_end)
            raise OSError(errno.EAGAIN, "the machine has no thread now")
        self._thread = thread

    def close(self) -> None:
        """Close our copy of the child's end."""
        os.close(self.pipe)

    def text(self) -> str:
        """Return the last lines once the pipe has ended, or after a second; secrets are masked."""
        self._thread.join(_END_TIMEOUT_S)
        whole, kept = len(self._kept) < _KEPT_BYTES, self._kept
        lines = kept.decode("utf-8", errors="replace")
        return mask_shapes(lines if whole else lines.partition("\n")[2])

    def _pass_on(self) -> None:
        with os.fdopen(self._read_end, "rb", buffering=0):
            while block := os.read(self._read_end, _BLOCK_BYTES):
                self._kept = (self._kept + block)[-_KEPT_BYTES:]
                with contextlib.suppress(OSError):  # a full disk, or a log whose reader has ended
                    os.write(_STDERR, block)
