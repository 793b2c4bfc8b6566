"""One system call fails while an agent starts that holds commands and results: it must keep them all.

Each call that a start makes on its files fails once: with EIO, ENOSPC, EMFILE and ENOMEM, after a clean stop and after
kill -9. The start may fail, with one sentence; the next one without a fault must find everything.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.states import AGENT_START, held, make_state, open_paths, set_aside
from tests.faults.tally import Budget, Tally
from tests.support.strace import Fault, count_calls, with_fault

__all__ = ["CALLS", "ERRORS", "all_faults", "loop", "start_with_fault"]


CALLS = ("openat", "pread64", "pwrite64", "fdatasync", "ftruncate", "fsync", "unlink", "rename", "mkdir", "newfstatat")
ERRORS = ("EIO", "ENOSPC", "EMFILE", "ENOMEM")
_TIMEOUT_S = 60


def all_faults(state: Path, start: Sequence[str], calls: Sequence[str] = CALLS) -> list[Fault]:
    """Return every fault that a start on this state directory can meet; starts it once, on the directory itself."""
    paths = open_paths(state)
    counts = count_calls(calls, paths, [*start, str(state)])
    return [
        Fault(call, error, number, paths)
        for call, count in counts.items()
        for number in range(1, count + 1)
        for error in ERRORS
    ]


def start_with_fault(state: Path, start: Sequence[str], fault: Fault) -> list[str]:
    """Start with the fault, and return what it did wrong; nothing is wrong if the start fails with one sentence."""
    before = held(state)
    done = subprocess.run(
        with_fault(fault, [*start, str(state)]), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    found = []
    if "Traceback" in done.stderr or done.returncode not in (0, 4):
        found.append(f"ended with {done.returncode}: {done.stderr[-300:]}")
    if set_aside(state):
        found.append(f"took the store for damaged: {set_aside(state)}")
    if held(state) != before:
        found.append(f"held {before} before and {held(state)} after")
    return [f"{fault}: {what}" for what in found]


def loop(budget: Budget) -> Tally:
    """Try the faults in random order; see the module."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="acm-faults-") as directory:
        kept, state = {}, Path(directory) / "state"
        for killed in (False, True):
            kept[killed] = Path(directory) / f"killed-{killed}"
            make_state(kept[killed], killed=killed)
        faults = []
        for killed, source in kept.items():
            _renew(state, source)
            faults += [(killed, fault) for fault in all_faults(state, AGENT_START)]
        budget.random.shuffle(faults)
        for _, (killed, fault) in zip(budget.rounds(), faults, strict=False):
            _renew(state, kept[killed])
            ending = "kill -9" if killed else "a clean stop"
            tally.violations += [f"after {ending}: {what}" for what in start_with_fault(state, AGENT_START, fault)]
            tally.counts["starts"] += 1
            tally.counts[f"{fault.error}"] += 1
        tally.counts["possible faults"] = len(faults)
    return tally


def _renew(state: Path, source: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(source, state)
