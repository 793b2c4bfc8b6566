"""What a process uses, read from /proc: processor time of all its threads, and memory."""

import re
from pathlib import Path

__all__ = ["cpu_s", "peak_mb", "private_mb", "reset_peak", "rss_mb", "switches"]


def cpu_s(pid: int) -> float:
    """Return the processor seconds of the threads that a process has now, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return _status_kb(pid, "VmRSS") / 1024


def peak_mb(pid: int) -> float:
    """Return the most resident memory that a process had since its start or `reset_peak`, in MB."""
    return _status_kb(pid, "VmHWM") / 1024


def reset_peak(pid: int) -> None:
    """Let `peak_mb` begin again."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def private_mb(pid: int) -> float:
    """Return the memory of a process that it shares with no other, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE)) / 1024


def switches(pid: int) -> int:
    """Return how often the threads of a process have waited (voluntary context switches)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(_number((task / "status").read_text(), "voluntary_ctxt_switches") for task in tasks)


def _status_kb(pid: int, name: str) -> int:
    return _number(Path(f"/proc/{pid}/status").read_text(), name)


def _number(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found, name
    return int(found[1])
