"""Making single system calls of a program fail, with strace (package `strace`)."""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["Fault", "count_calls", "strace", "with_fault"]


def strace() -> str:
    """Return strace's path; raises AssertionError, which says how to install it."""
    path = shutil.which("strace")
    assert path, "strace is missing: apt-get install strace (scripts/bootstrap.sh does it)"
    return path


class Fault:
    """The call `name` fails with `error` (such as EIO) when it is made for the `number`-th time (from 1) on `paths`."""

    def __init__(self, name: str, error: str, number: int, paths: Iterable[Path]) -> None:
        self.name, self.error, self.number, self.paths = name, error, number, tuple(paths)

    def __repr__(self) -> str:
        return f"{self.error} at {self.name} number {self.number}"


def with_fault(fault: Fault, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs `argv` with this fault."""
    what = ["-e", f"trace={fault.name}", "-e", f"inject={fault.name}:error={fault.error}:when={fault.number}"]
    return [strace(), "-f", "-qq", "-o", os.devnull, *_on(fault.paths), *what, *argv]


def count_calls(names: Sequence[str], paths: Iterable[Path], argv: Sequence[str]) -> Counter[str]:
    """Run `argv` to its end, and return how often it makes each of these calls on `paths`."""
    with tempfile.NamedTemporaryFile(suffix=".strace") as log:
        trace = ["-f", "-qq", "-o", log.name, *_on(paths), "-e", f"trace={','.join(names)}"]
        subprocess.run([strace(), *trace, *argv], check=True, capture_output=True, timeout=100)
        lines = log.read().decode(errors="replace").splitlines()
    called = (re.match(r"\d+ +(\w+)\(", line) for line in lines)
    return Counter(match[1] for match in called if match)


def _on(paths: Iterable[Path]) -> list[str]:
    return [word for path in paths for word in ("-P", str(path))]
