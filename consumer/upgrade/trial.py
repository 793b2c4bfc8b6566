"""The record of the last upgrade, `trial.json`: written by one release and read by another, so its members stay."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import msgspec

from consumer.errors import UpgradeError

__all__ = [
    "TrialState",
    "UpgradeTrial",
]


class TrialState(StrEnum):
    """The state of a trial. Only `on_trial` can still change."""

    ON_TRIAL = "on_trial"
    PROVED = "proved"
    FAILED = "failed"


@dataclass(frozen=True)
class UpgradeTrial:
    """The trial of a new release by `command_id`: from version `old` to `new`, which has `watch_s` seconds.

    `starts` counts the starts of the new release; `reason` is why it failed, as the part of a sentence after a colon,
    and `stderr` the last lines that it wrote. `runs` counts its starts after it has proved itself that have neither
    lasted long enough nor ended as intended.
    """

    command_id: str
    old: str
    new: str
    watch_s: float
    state: TrialState = TrialState.ON_TRIAL
    starts: int = 0
    reason: str | None = None
    stderr: str = ""
    runs: int = 0

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read the record; raises UpgradeError."""
        try:
            return msgspec.json.decode(content, type=cls)
        except ValueError as error:
            raise UpgradeError(
                f"The record of the last upgrade cannot be read: {error}.", code="trial_damaged"
            ) from error

    def encode(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self)

    def started(self) -> Self:
        """Return the record with one more start."""
        return replace(self, starts=self.starts + 1)

    def begun(self) -> Self:
        """Return the record with one more start after the proof."""
        return replace(self, runs=self.runs + 1)

    def proved(self) -> Self:
        """Return the record of a trial that succeeded."""
        return replace(self, state=TrialState.PROVED)

    def failed(self, reason: str) -> Self:
        """Return the record of a trial that failed."""
        return replace(self, state=TrialState.FAILED, reason=reason)
