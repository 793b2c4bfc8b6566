"""Watches whether the file system of the state directory has inodes left: a lack of them looks like a full disk."""

from collections.abc import Callable
from pathlib import Path

from broker.system.files import has_free_names
from consumer.ports import Clock

__all__ = [
    "InodeWatch",
]


_INTERVAL_S = 60.0


class InodeWatch:
    """A consumer.ports.BackgroundTask. `report` gets one sentence while there are none, and None otherwise.

    The command store needs no new file while it runs, so that commands are still accepted.
    """

    def __init__(self, directory: Path, clock: Clock, report: Callable[[str | None], None]) -> None:
        self._directory = directory
        self._clock = clock
        self._report = report
        self._look_at = 0.0

    def step(self) -> None:
        """Look once a minute."""
        if self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + _INTERVAL_S
        try:
            is_short = not has_free_names(self._directory)
        except OSError:  # the store reports what is wrong with the directory
            return
        self._report(
            f"The file system of {self._directory} has no inodes left, although it may have space (`df -i`): what "
            "needs a new file fails until others are removed."
            if is_short
            else None
        )

    def next_due(self) -> float | None:
        """Return None: it is not urgent, and the loop runs every two seconds."""
