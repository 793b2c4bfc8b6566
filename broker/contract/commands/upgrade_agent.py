"""`upgrade-agent`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Literal

from broker.contract.artifacts import Artifact

__all__ = [
    "UpgradeAgent",
    "UpgradeAgentData",
]


@dataclass(frozen=True)
class UpgradeAgent:
    """Replace the agent with the version in the package; an older one is refused unless `allow_downgrade`."""

    package: Artifact
    allow_downgrade: bool = False


@dataclass(frozen=True)
class UpgradeAgentData:
    """What was done. `running` is the version that runs now, `package` that of the package, `previous` the one before.

    `reason` is why the new version was rolled back.
    """

    action: Literal["upgraded", "unchanged", "rolled_back"]
    running: str
    package: str
    previous: str
    reason: str | None = None
