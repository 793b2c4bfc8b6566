"""Passes a child's stderr on to our own, and keeps its end for a result."""

import contextlib
import os
import threading
from typing import IO

from broker.contract.secret_shapes import mask_shapes

__all__ = ["LastLines"]


_BLOCK_BYTES = 1 << 16
_KEPT_BYTES = 4096
_STDERR = 2
_END_TIMEOUT_S = 1.0  # a process that the child left running may hold the pipe open


class LastLines:
    """Reads a pipe to its end on a thread of its own."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._kept = b""
        self._thread = threading.Thread(target=self._pass_on, name="acm-stderr", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the last lines once the pipe has ended, or after a second; secrets are masked."""
        self._thread.join(_END_TIMEOUT_S)
        whole, kept = len(self._kept) < _KEPT_BYTES, self._kept
        lines = kept.decode("utf-8", errors="replace")
        return mask_shapes(lines if whole else lines.partition("\n")[2])

    def _pass_on(self) -> None:
        with self._pipe:
            while block := os.read(self._pipe.fileno(), _BLOCK_BYTES):
                self._kept = (self._kept + block)[-_KEPT_BYTES:]
                with contextlib.suppress(OSError):  # a full disk, or a log whose reader has ended
                    os.write(_STDERR, block)
