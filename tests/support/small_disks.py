"""Small file systems that a test can fill; they need root."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["filled", "mounted"]


@contextmanager
def mounted(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size on a new directory for a block."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def filled(directory: Path) -> Path:
    """Fill a file system to its last byte; return the file that does it."""
    filler = directory / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
    return filler
