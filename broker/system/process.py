"""Processes: what keeps the secrets of this one unreadable, and whether a signal has stopped another."""

import ctypes
import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path

__all__ = [
    "forbid_dumps",
    "is_stopped_by_signal",
    "remove_variables",
]


_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Forbid core dumps of this process, and access to it by users other than root, until it executes another program.

    Sets PR_SET_DUMPABLE (prctl(2)). A core dump limit of 0 is not enough: it does not apply to a program that receives
    dumps (core_pattern), children inherit it, and the environment stays readable in /proc.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def remove_variables(names: Iterable[str], environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Remove these variables from the environment, so that no child inherits them, and return those that were set."""
    return {name: environment.pop(name) for name in names if name in environment}


def is_stopped_by_signal(pid: int) -> bool:
    """Whether a signal has stopped the process (proc(5), /proc/pid/stat: the state follows the name in parentheses).

    One that is not found, as of another container, is not.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][:1] in "Tt"
    except OSError:
        return False
