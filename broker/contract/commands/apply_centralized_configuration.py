"""`apply-centralized-configuration`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from broker.contract.artifacts import Artifact
from broker.contract.configurations import DiffSize, Generation
from broker.contract.fields import FileName, GroupName

__all__ = [
    "ApplyCentralizedConfiguration",
    "ApplyCentralizedConfigurationData",
]


_FILE = msgspec.Meta(extra_json_schema={"contentMediaType": "text/plain"})  # a form has several lines for it


@dataclass(frozen=True)
class ApplyCentralizedConfiguration:
    """Activate a configuration: `content`, the text of one file, or `artifact`, a file or a tar archive.

    `file` is the name of a single file (default: the agent's `configuration.file`); `group` is stored with the
    generation as a label.
    """

    content: Annotated[str, _FILE] | None = None
    artifact: Artifact | None = None
    file: FileName | None = None
    group: GroupName | None = None

    def __post_init__(self) -> None:
        if (self.content is None) == (self.artifact is None):
            raise ValueError("give either content or artifact, not both")


@dataclass(frozen=True)
class ApplyCentralizedConfigurationData:
    """What was done, and the generation that is `active` now; absent if there is none.

    `previous` is the name of the generation that was active before, `diff` the difference to the new one, `reason` why
    the new one was rolled back or not applied.
    """

    action: Literal["applied", "unchanged", "rolled_back", "not_applied"]
    active: Generation | None = None
    previous: str | None = None
    diff: DiffSize | None = None
    reason: str | None = None
