"""Asks the user of a terminal, and lets a Ctrl-C end the question at every moment."""

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Iterator

__all__ = [
    "ask",
    "ask_secret",
]


def ask(question: str) -> str:
    """Show a question on stderr and return the line that is typed, without its end; empty at the end of the input.

    Standard input is a terminal. Called in the main thread. Raises KeyboardInterrupt.
    """
    print(question, end=" ", file=sys.stderr, flush=True)
    _wait_for_line()
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)
    return line.rstrip("\n")


def ask_secret(question: str) -> str:
    """Do as `ask`, and do not show what is typed. Raises KeyboardInterrupt."""
    with _echo_off():
        try:
            return ask(question)
        finally:
            print(file=sys.stderr)


def _wait_for_line() -> None:
    """Wait for standard input. The look of input() has a race: a signal that comes just before its read waits for a
    line too."""
    woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(waker)
    try:
        while sys.stdin not in select.select([sys.stdin, woken], [], [])[0]:
            os.read(woken, 64)  # the signal's handler has run, and raised nothing
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(waker)


@contextlib.contextmanager
def _echo_off() -> Iterator[None]:
    before = termios.tcgetattr(sys.stdin)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
