"""`apply-centralized-configuration`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Literal

from broker.contract.artifacts import Artifact
from broker.contract.configurations import DiffSize, Generation
from broker.contract.fields import FileName, GroupName

__all__ = [
    "ApplyCentralizedConfiguration",
    "ApplyCentralizedConfigurationData",
]


@dataclass(frozen=True)
class ApplyCentralizedConfiguration:
    """Make a configuration the active one: `content` as it stands here, or an `artifact`, a file or a tar archive.

    `file` names the single file (the agent has a default); `group` is a label that is kept with the generation.
    """

    content: str | None = None
    artifact: Artifact | None = None
    file: FileName | None = None
    group: GroupName | None = None

    def __post_init__(self) -> None:
        if (self.content is None) == (self.artifact is None):
            raise ValueError("give either content or artifact, and not both")


@dataclass(frozen=True)
class ApplyCentralizedConfigurationData:
    """What was done, and what is active now. `active` is absent where no centralized configuration is.

    `previous` names the generation that was active before, `diff` is between it and the new one, `reason` says why the
    new one was rolled back or not applied at all.
    """

    action: Literal["applied", "unchanged", "rolled_back", "not_applied"]
    active: Generation | None = None
    previous: str | None = None
    diff: DiffSize | None = None
    reason: str | None = None
