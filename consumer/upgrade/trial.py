"""The record of the last upgrade, `trial.json`: one release writes it, another reads it, so its members stay."""

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
    """Where the trial stands. Only `on_trial` can still change."""

    ON_TRIAL = "on_trial"
    PROVED = "proved"
    FAILED = "failed"


@dataclass(frozen=True)
class UpgradeTrial:
    """A new release that must prove itself: by `command_id`, from version `old` to `new`, within `watch_s` seconds.

    `starts` counts how often the new release was started; `reason` says why it failed, to go on after a colon.
    """

    command_id: str
    old: str
    new: str
    watch_s: float
    state: TrialState = TrialState.ON_TRIAL
    starts: int = 0
    reason: str | None = None

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read the record; raises UpgradeError."""
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as error:
            raise UpgradeError(f"The record of the last upgrade cannot be read: {error}.") from error

    def encode(self) -> bytes:
        """Return the record as JSON."""
        return msgspec.json.encode(self)

    def started(self) -> Self:
        """Return the record with one more start."""
        return replace(self, starts=self.starts + 1)

    def proved(self) -> Self:
        """Return the record of a new release that has proved itself."""
        return replace(self, state=TrialState.PROVED)

    def failed(self, reason: str) -> Self:
        """Return the record of a new release that has not."""
        return replace(self, state=TrialState.FAILED, reason=reason)
