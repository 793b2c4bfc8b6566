"""`upgrade-agent`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from broker.contract.artifacts import Artifact, Sha256

__all__ = ["UpgradeAgent", "UpgradeAgentData"]


@dataclass(frozen=True)
class UpgradeAgent:
    """Replace the agent by the version in the package at `url`, of `size` bytes and with this SHA-256.

    An older version than the one that runs is refused unless `allow_downgrade`.
    """

    url: str
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]
    allow_downgrade: bool = False

    @property
    def artifact(self) -> Artifact:
        """The package."""
        return Artifact(self.url, self.sha256, self.size)


@dataclass(frozen=True)
class UpgradeAgentData:
    """What was done. `running` is the version that runs now, `package` the package's, `previous` the one before.

    `reason` says why the new version was rolled back.
    """

    action: Literal["upgraded", "unchanged", "rolled_back"]
    running: str
    package: str
    previous: str
    reason: str | None = None
