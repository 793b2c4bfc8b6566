"""Findings about the room on file systems, for both doctors."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.system.files import has_free_names
from broker.system.findings import NOT_CHECKED, Fault, Finding, ok

__all__ = [
    "RoomRules",
    "room_findings",
]


_CHECK, _TENTH = "disk", 10


@dataclass(frozen=True)
class RoomRules:
    """What is wrong, and when.

    It is `full` with less than `least_bytes` or without inodes, and `fills` with less than a tenth and less than
    `little_bytes`. `shown` writes how many bytes are free, of how many.
    """

    full: Fault
    fills: Fault
    read_only: Fault
    least_bytes: int
    little_bytes: int
    shown: Callable[[int, int], str]


def room_findings(directories: Iterable[Path], rules: RoomRules) -> Iterator[Finding]:
    """Look at the file system of each directory, at each one once."""
    seen: set[int] = set()
    for directory in directories:
        try:
            device = directory.stat().st_dev
            if device not in seen:
                yield _finding(directory, rules)
            seen.add(device)
        except OSError as error:
            yield NOT_CHECKED.found(_CHECK, f"Not checked: {directory} cannot be looked at: {error.strerror}.")


def _finding(directory: Path, rules: RoomRules) -> Finding:
    found = os.statvfs(directory)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    room = f"The file system of {directory} has {rules.shown(free, size)} left"
    if found.f_flag & os.ST_RDONLY:
        return rules.read_only.found(_CHECK, f"The file system of {directory} is read only.")
    if not has_free_names(directory):
        return rules.full.found(_CHECK, f"{room}, but no inodes for new files.")
    if free < rules.least_bytes:
        return rules.full.found(_CHECK, f"{room}.")
    fills = free < rules.little_bytes and free < size / _TENTH
    return (rules.fills.found if fills else ok)(_CHECK, f"{room}.")
