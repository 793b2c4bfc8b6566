"""Handles TERM and INT."""

import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = [
    "on_signals",
]


@contextlib.contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on TERM and INT while the block runs."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
