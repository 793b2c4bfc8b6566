"""rotate-logs: the log is set aside under a name that belongs to the command, so that a second run changes nothing."""

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
    """Rotate the log and say what was done; raises RotationError."""
    log = Path(parameters.path)
    try:
        about = _look_at(log)
        target = log.with_name(f"{log.name}.{command.created_at:%Y%m%dT%H%M%SZ}-{command.id[-6:]}")
        rotated = _set_aside(log, about, target, context)
        size = target.stat().st_size if rotated else None
        removed = _remove_all_but(parameters.keep, log)
    except OSError as error:
        raise RotationError(f"{log} cannot be rotated: {error.strerror}.") from error
    data = RotateLogsData(str(target) if rotated else None, size, tuple(map(str, removed)))
    return Result(f"{log} was rotated." if rotated else f"{log} is empty and was left alone.", data)


def _look_at(log: Path) -> os.stat_result:
    about = log.lstat()
    if not (log.is_absolute() and stat.S_ISREG(about.st_mode)):
        raise RotationError(f"{log} is not the absolute path of a regular file; it was left alone.")
    return about


def _set_aside(log: Path, about: os.stat_result, target: Path, context: Context) -> bool:
    """Give the old file its second name, then put a new one in its place; both steps may have been done before."""
    if not target.exists():
        if about.st_size == 0:
            return False
        target.hardlink_to(log)
        context.observer.reached("rotate-logs.linked")
    if target.samefile(log):
        _begin_anew(log, about)
    return True


def _begin_anew(log: Path, about: os.stat_result) -> None:
    empty = log.with_name(f".{log.name}.new")
    empty.unlink(missing_ok=True)
    handle = os.open(empty, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(handle, about.st_uid, about.st_gid)
        os.fchmod(handle, stat.S_IMODE(about.st_mode))
    finally:
        os.close(handle)
    empty.replace(log)
    _sync(log.parent)


def _sync(directory: Path) -> None:
    """Make the new names in a directory durable (fsync(2))."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_all_but(keep: int, log: Path) -> list[Path]:
    ours = re.compile(re.escape(log.name) + r"\.\d{8}T\d{6}Z-[0-9A-Za-z-]{1,6}")
    removed = sorted(path for path in log.parent.iterdir() if ours.fullmatch(path.name))[:-keep]
    for path in removed:
        path.unlink()
    return removed


HANDLER = Handler("rotate-logs", Interruption.RERUN, RotateLogs, rotate)
