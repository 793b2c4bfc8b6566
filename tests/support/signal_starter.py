"""Starters that leave their children with signals that they have blocked and ignored, as nohup and shells do."""

import sys

__all__ = ["BLOCKING", "signals_of"]


_SET = """
import os, signal, sys
kept = {signal.SIGKILL, signal.SIGSTOP}
for number in signal.valid_signals() - kept:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - kept)
os.execv(sys.argv[1], sys.argv[1:])
"""
_OF_GLIBC = 1 << 31 | 1 << 32  # signals 32 and 33
BLOCKING = (sys.executable, "-c", _SET)
"""A command line to put before a program's own, which is a path: it runs with all signals blocked and ignored."""


def signals_of(status: str) -> tuple[int, int]:
    """Return the masks of blocked and of ignored signals in the text of /proc/PID/status (proc(5)).

    Without those that glibc keeps to itself, and that no program can set: children of GNU make ignore one.
    """
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(values["SigBlk"], 16) & ~_OF_GLIBC, int(values["SigIgn"], 16) & ~_OF_GLIBC
