"""The disks: whether the file systems that the servers write to have room."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from broker.system.disk_room import RoomRules, room_findings
from broker.system.findings import Fault, Finding, Level, ok

__all__ = [
    "check_disks",
]


FULL = Fault(
    "disk_full",
    Level.FAIL,
    "A file system that the servers write to has no room left, or no inodes.",
    "Make room: `df -h` and `df -i` show what is used, `acm prune` removes old commands.",
)
FILLS = Fault(
    "disk_fills",
    Level.WARN,
    "A file system that the servers write to has less than a tenth left, and less than 1 GiB.",
    "Make room soon: `df -h` shows what is used, `acm prune` removes old commands.",
)
NOT_WRITABLE = Fault(
    "disk_read_only",
    Level.FAIL,
    "A file system that the servers write to is mounted to be read only.",
    "Look for errors of the disk with `dmesg`, then mount it again: mount -o remount,rw PATH",
)
_GIB = 1 << 30


def check_disks(directories: Sequence[Path]) -> Iterator[Finding]:
    """Look at the file system of each directory, at each one once."""
    if not directories:
        yield ok("disk", "The configuration names no directory of this machine.")
    yield from room_findings(directories, RoomRules(FULL, FILLS, NOT_WRITABLE, 16 << 20, _GIB, _shown))


def _shown(free: int, size: int) -> str:
    return f"{_in_units(free)} of {_in_units(size)}"


def _in_units(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.0f} MiB"
