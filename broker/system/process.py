"""What acm and acm-agent do with their own process: what they log, and that no secret of theirs can be read in it."""

import ctypes
import os
from collections.abc import Iterable, MutableMapping

__all__ = [
    "forbid_dumps",
    "take_out",
]


_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Let this process leave no core dump, and let nobody but root look into it; until it becomes another program.

    That is PR_SET_DUMPABLE of prctl(2). A limit of 0 on core dumps is not enough: the kernel does not hold a program
    that takes dumps (core_pattern) to it, children inherit it, and the environment stays readable in /proc.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take_out(names: Iterable[str], environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Take these variables out of the environment, so that no child inherits them, and return those that were there."""
    return {name: environment.pop(name) for name in names if name in environment}
