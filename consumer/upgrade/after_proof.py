"""The minutes after a new release has proved itself: until they are over, a crash loop brings the old one back.

The launcher starts the old release as the watcher, which counts the starts and executes the new one. Starts that end as
intended are not counted.
"""

import contextlib
from dataclasses import replace
from pathlib import Path

import structlog

from consumer.errors import UpgradeError
from consumer.ports import Clock
from consumer.settings import UpgradeConfig
from consumer.upgrade.installation import Installation
from consumer.upgrade.trial import TrialState, UpgradeTrial

__all__ = [
    "WATCH_S",
    "AfterProof",
]


WATCH_S = 300.0
_RETRY_S = 60.0
_log = structlog.get_logger(__name__)


class AfterProof:
    """Ends the watch once this process has run for WATCH_S seconds. A BackgroundTask of the agent."""

    def __init__(self, config: UpgradeConfig, clock: Clock) -> None:
        self._clock = clock
        self._installation = None if config.root is None else Installation(Path(config.root))
        self._end_at = clock.monotonic() + WATCH_S if self._may_be_watched() else None

    @property
    def running_version(self) -> str | None:
        """The version of the release that this process runs; None if it is not one."""
        return None if self._installation is None else self._installation.running()

    @property
    def may_go_back(self) -> bool:
        """Whether the release before this one may still take over; true if that cannot be read now."""
        try:
            return self._installation is not None and self._installation.watcher is not None
        except OSError:  # which the watch reports
            return True

    def step(self) -> None:
        """End the watch if it is time."""
        if self._installation is None or self._end_at is None or self._clock.monotonic() < self._end_at:
            return
        try:
            if self._watched() is not None:  # another upgrade may have begun
                self._installation.end_trial()
            self._end_at = None
        except OSError as error:
            _log.warning("upgrade_watch_not_ended", reason=str(error))
            self._end_at = self._clock.monotonic() + _RETRY_S

    def next_due(self) -> float | None:
        """Return when (monotonic seconds) the watch ends."""
        return self._end_at

    def ended_as_intended(self) -> None:
        """Begin the count again: this process ends because it was stopped or replaced."""
        try:
            trial = self._watched()
            if self._installation is not None and trial is not None:
                self._installation.keep(replace(trial, runs=1))
        except OSError as error:
            _log.warning("upgrade_start_counted", reason=str(error))

    def failure(self) -> str | None:
        """Return why the release that this one replaced again was rolled back after its proof, in one sentence."""
        trial = None
        with contextlib.suppress(OSError):  # which the watch reports
            trial = self._record()
        if trial is None or trial.state is not TrialState.FAILED or not trial.runs or self._installation is None:
            return None
        if self._installation.running() != trial.old:
            return None
        return f"Version {trial.new} was rolled back to {trial.old}: {trial.reason}."

    def _may_be_watched(self) -> bool:
        """Return whether it is watched; true if that cannot be read now: a watch that is not ended never ends."""
        try:
            return self._watched() is not None
        except OSError as error:
            _log.warning("upgrade_record_unreadable", reason=str(error))
            return True

    def _watched(self) -> UpgradeTrial | None:
        """Return the record if this process runs a release that has proved itself and is watched."""
        trial = self._record()
        if self._installation is None or trial is None or trial.state is not TrialState.PROVED or not trial.runs:
            return None
        return trial if self._installation.watcher and self._installation.running() == trial.new else None

    def _record(self) -> UpgradeTrial | None:
        with contextlib.suppress(UpgradeError):  # it is damaged
            return None if self._installation is None else self._installation.trial()
        return None
