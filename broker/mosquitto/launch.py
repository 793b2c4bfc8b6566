"""Executes a program that ends when its parent does.

    python -I -S launch.py PARENT PROGRAM ARGUMENT...

PARENT is the id of the process that starts this one. It is run by its path and imports none of our modules.
"""

import ctypes
import os
import signal
import sys

__all__ = [
    "main",
]


_PR_SET_PDEATHSIG = 1  # kept over execve(2), unless that changes the user (prctl(2))


def main(parent: str, *argv: str) -> None:
    """Execute the program; TERM ends it as soon as the thread that started it has ended, even by KILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        return  # it has ended already
    os.execv(argv[0], argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(*sys.argv[1:])
