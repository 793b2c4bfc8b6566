"""PID files, to find a child process that outlived a killed agent."""

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "PidFile",
]


@dataclass(frozen=True)
class PidFile:
    """Records a child in a file, so that the next agent finds it if this one is killed."""

    path: Path

    def write(self, pid: int) -> None:
        """Write the process id and its start time; not durable, because a reboot ends the child as well."""
        self.path.write_text(f"{pid} {_start_time(pid)}")

    def find(self) -> int | None:
        """Return the process id of a child that still runs; its start time distinguishes it from a reused id.

        Raises OSError if that cannot be determined now: a child may run.
        """
        try:
            pid, started = self.path.read_text().split()
        except (FileNotFoundError, IsADirectoryError, ValueError):
            return None
        return int(pid) if started == _start_time(int(pid)) else None


def _start_time(pid: int) -> str:
    """Return field 22 of /proc/PID/stat (proc(5)), or nothing for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
