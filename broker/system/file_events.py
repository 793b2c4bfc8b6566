"""Tells when a file was written, also by another process (inotify(7))."""

import ctypes
import os
from pathlib import Path

__all__ = [
    "FileEvents",
]


_IN_MODIFY = 0x2
_BUFFER_BYTES = 4096


class FileEvents:
    """Readable once the file was written. Raises OSError if the system cannot tell, or does so for no more files."""

    def __init__(self, file: Path) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        if not hasattr(library, "inotify_init1"):
            raise OSError("This system has no inotify.")
        self._descriptor: int = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0 or library.inotify_add_watch(self._descriptor, os.fsencode(file), _IN_MODIFY) < 0:
            error = ctypes.get_errno()
            self.close()
            raise OSError(error, os.strerror(error), str(file))

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._descriptor

    def take(self) -> bool:
        """Return whether the file was written since the last call."""
        written = False
        try:
            while os.read(self._descriptor, _BUFFER_BYTES):
                written = True
        except BlockingIOError:
            return written
        return written

    def close(self) -> None:
        """Watch no longer."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
