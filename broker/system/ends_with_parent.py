"""Executes a program that ends when its parent does.

    python -I -S ends_with_parent.py PARENT PROGRAM ARGUMENT...

PARENT is the id of the process that starts this one. It is run by its path and imports none of our modules.
"""

import ctypes
import os
import signal
import sys

__all__ = [
    "ending_with_this_process",
    "main",
]


_PR_SET_PDEATHSIG = 1  # kept over execve(2), unless that changes the user (prctl(2))


def ending_with_this_process(*argv: str) -> list[str]:
    """Return the arguments that run a program, which is a path, such that it gets TERM when this process has ended.

    More exactly, when the thread that starts it has ended: start it from one that lives as long as the process.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def main(parent: str, *argv: str) -> None:
    """Execute the program; TERM ends it as soon as the thread that started it has ended, even by KILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        return  # it has ended already
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(*sys.argv[1:])
