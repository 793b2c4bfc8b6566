"""rotate-logs: renames the log after the command that rotates it, so that a second run changes nothing."""

import os
import re
import stat
from pathlib import Path

from broker import Command
from consumer import ConsumerError, Context, Handler, Interruption, Result
from rotate_logs.contract import RotateLogs, RotateLogsData

__all__ = ["HANDLER", "RotationError"]


class RotationError(ConsumerError):
    """The log file cannot be rotated."""


def rotate(command: Command, parameters: RotateLogs, context: Context) -> Result:
    """Rotate the log and report what was done. Raises RotationError."""
    log = Path(parameters.path)
    try:
        metadata = _regular_file(log)
        target = log.with_name(f"{log.name}.{command.created_at:%Y%m%dT%H%M%SZ}-{command.id[-6:]}")
        rotated = _rename(log, metadata, target, context)
        size = target.stat().st_size if rotated else None
        removed = _remove_all_but(parameters.keep, log)
    except OSError as error:
        raise RotationError(f"{log} cannot be rotated: {error.strerror}.") from error
    data = RotateLogsData(str(target) if rotated else None, size, tuple(map(str, removed)))
    return Result(f"{log} was rotated." if rotated else f"{log} is empty and was not changed.", data)


def _regular_file(log: Path) -> os.stat_result:
    metadata = log.lstat()
    if not (log.is_absolute() and stat.S_ISREG(metadata.st_mode)):
        raise RotationError(f"{log} is not the absolute path of a regular file; it was not changed.")
    return metadata


def _rename(log: Path, metadata: os.stat_result, target: Path, context: Context) -> bool:
    """Link the old file to its new name, then replace it with an empty one; either may be done already."""
    if not target.exists():
        if metadata.st_size == 0:
            return False
        target.hardlink_to(log)
        context.observer.reached("rotate-logs.linked")
    if target.samefile(log):
        _replace_by_empty(log, metadata)
    return True


def _replace_by_empty(log: Path, metadata: os.stat_result) -> None:
    empty = log.with_name(f".{log.name}.new")
    empty.unlink(missing_ok=True)
    handle = os.open(empty, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(handle, metadata.st_uid, metadata.st_gid)
        os.fchmod(handle, stat.S_IMODE(metadata.st_mode))
    finally:
        os.close(handle)
    empty.replace(log)
    _sync(log.parent)


def _sync(directory: Path) -> None:
    """Make the new names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_all_but(keep: int, log: Path) -> list[Path]:
    renamed = re.compile(re.escape(log.name) + r"\.\d{8}T\d{6}Z-[0-9A-Za-z-]{1,6}")
    removed = sorted(path for path in log.parent.iterdir() if renamed.fullmatch(path.name))[:-keep]
    for path in removed:
        path.unlink()
    return removed


HANDLER = Handler("rotate-logs", Interruption.RERUN, RotateLogs, rotate)
