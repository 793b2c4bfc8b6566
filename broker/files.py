"""Files whose content and names are there after a power loss: written aside, fsynced, then renamed."""

import os
from pathlib import Path

__all__ = ["write_durably"]


def write_durably(path: Path, content: bytes, mode: int) -> None:
    """Replace the file by one with this content, whole or not at all; raises OSError."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # left behind by a crash, perhaps with a wider mode
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    part.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
