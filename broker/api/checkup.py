"""Runs the checks of the doctor for the API: one checkup at a time, and its findings for all who ask soon after."""

import threading
from collections.abc import Callable
from datetime import datetime

from broker.api.installation import ApiInstallation
from broker.api.rate_limit import RateLimited
from broker.fleet.report_models import Diagnosis, FindingView
from broker.system.checkup import TIMED_OUT, examine

__all__ = [
    "Checkup",
]


_LIMIT_S = 20.0
_FRESH_S = 30.0
_FRESH_AFTER_HANG_S = 600.0  # a check that hangs keeps its thread, so these must not become many


class Checkup:
    """The checks of an installation. `now` is a clock in UTC, and `monotonic` one in seconds."""

    def __init__(
        self, installation: ApiInstallation, *, now: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._installation = installation
        self._now, self._monotonic = now, monotonic
        self._running = threading.Lock()
        self._last: Diagnosis | None = None
        self._fresh_until = monotonic()

    def diagnosis(self) -> Diagnosis:
        """Return what the checks find, or have found within the last half minute; takes at most 20 seconds.

        Raises RateLimited while another thread does it, and NotAvailableHere.
        """
        if not self._running.acquire(blocking=False):
            raise RateLimited(
                f"A checkup is running: its findings are there in {_LIMIT_S:g} s at most.", retry_after_s=int(_LIMIT_S)
            )
        try:
            if self._last is None or self._monotonic() >= self._fresh_until:
                self._last = self._examined()
            return self._last
        finally:
            self._running.release()

    def _examined(self) -> Diagnosis:
        checks, began = self._installation.checks(), self._now()
        found = list(examine(checks, _LIMIT_S))
        hangs = any(it.code == TIMED_OUT.code for it in found)
        self._fresh_until = self._monotonic() + (_FRESH_AFTER_HANG_S if hangs else _FRESH_S)
        views = tuple(FindingView(it.check, it.level, it.code, it.found, it.fix) for it in found)
        return Diagnosis(began, views)
