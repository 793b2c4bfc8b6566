"""What both commands about a centralized configuration say of it."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

__all__ = ["DiffSize", "FileName", "Generation", "GroupName"]

FileName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$(?!\n)",
        description="The name of a file, not a path: letters, digits and `.`, `_`, `-`.",
    ),
]
GroupName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$(?!\n)",
        description="The name of a group of agents: letters, digits and `.`, `_`, `-`.",
    ),
]


@dataclass(frozen=True)
class Generation:
    """One centralized configuration on the agent's disk. `sha256` is of the content as it was delivered."""

    name: str
    sha256: str
    files: int
    group: str | None = None


@dataclass(frozen=True)
class DiffSize:
    """How far two generations lie apart. Lines are compared by file, and a line that only moved does not count."""

    files_added: int
    files_changed: int
    files_removed: int
    lines_added: int
    lines_removed: int
