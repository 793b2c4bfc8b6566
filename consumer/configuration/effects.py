"""The effects of a configuration update outside its own directory, in one value that unit tests replace."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consumer.system.interpreter import missing_program
from consumer.system.programs import Bounds, Ended, run_program

__all__ = [
    "Effects",
]


@dataclass(frozen=True)
class Effects:
    """Runs programs, sends signals to processes, and waits for events (at most the given seconds).

    `missing` returns why a program cannot be there to be run, or None.
    """

    run: Callable[[Sequence[str], Bounds], Ended] = run_program
    send_signal: Callable[[int, int], None] = os.kill
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait
    missing: Callable[[str], str | None] = missing_program
