"""The signals of a program that runs until one of them ends it."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from broker.system.early_signals import IGNORED, TERMINATED

__all__ = [
    "Signals",
    "leaving_on_signals",
    "on_signals",
    "raising_on_term",
]


_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Signals:
    """TERM, INT and QUIT stop the program, HUP lets it reload, and no other signal that it can survive ends it."""

    def __init__(self) -> None:
        self._stop: Callable[[], None] | None = None
        self._reload: Callable[[], None] | None = None
        self._is_stopping = False

    def deliver(self, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """Call `stop` or `reload` at each signal from now on. A stop that came before ends the program here."""
        self._stop, self._reload = stop, reload
        if self._is_stopping:
            raise SystemExit(0)

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal that stops; before `deliver`, it ends whatever the program waits for."""
        self._is_stopping = True
        if self._stop is None:
            raise SystemExit(0)
        self._stop()

    def on_reload(self, number: int, frame: FrameType | None) -> None:
        """Handle HUP; before `deliver`, everything is still to be loaded."""
        if self._reload is not None:
            self._reload()


@contextlib.contextmanager
def raising_on_term() -> Iterator[None]:
    """Let TERM raise SystemExit in the block, so that a command can still report what it has done."""
    before = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Let TERM, INT and QUIT raise SystemExit in the block, with the exit code of a program that the signal ends."""
    before = {number: signal.signal(number, _leave) for number in _STOP}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _raise_exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


@contextlib.contextmanager
def on_signals() -> Iterator[Signals]:
    """Handle signals during the block. Enter it first, before anything that may wait, and `deliver` them later.

    A signal that is not needed gets an empty handler: SIG_IGN would be inherited by child processes.
    """
    signals = Signals()
    handlers = dict.fromkeys(_STOP, signals.on_stop) | {signal.SIGHUP: signals.on_reload}
    ignored = dict.fromkeys(IGNORED, lambda *_: None)
    before = {number: signal.signal(number, handler) for number, handler in {**handlers, **ignored}.items()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
