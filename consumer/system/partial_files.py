"""Partly received files: kept until the rest arrives, or until nothing has arrived for a week."""

from datetime import datetime, timedelta
from pathlib import Path

import structlog

from consumer.system.leftovers import Leftovers

__all__ = [
    "PARTIAL_FILES",
    "drop_stale_files",
    "partial_file",
]


_log = structlog.get_logger(__name__)
PARTIAL_FILES = "downloads"
"""The name of their directory in the agent's state directory."""
_MAX_FILES = 4
_RETENTION = timedelta(days=7)


def partial_file(directory: Path, sha256: str, leftovers: Leftovers) -> Path:
    """Return where the file with this SHA-256 is collected, deleting the oldest others; raises OSError."""
    directory.mkdir(mode=0o700, exist_ok=True)
    wanted = directory / f"{sha256}.part"
    others = [path for path in _oldest_first(directory) if path != wanted]
    leftovers.remove_all(others[: max(0, len(others) + 1 - _MAX_FILES)])
    return wanted


def drop_stale_files(directory: Path, now: datetime, leftovers: Leftovers) -> None:
    """Delete the files to which nothing was added for a week."""
    try:
        files = _oldest_first(directory)
        stale_before = (now - _RETENTION).timestamp()
        leftovers.remove_all(path for path in files if path.lstat().st_mtime < stale_before)
    except OSError as error:
        _log.warning("stale_files_not_dropped", directory=str(directory), reason=str(error))


def _oldest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.part"), key=lambda path: path.lstat().st_mtime)
