"""Field types that several messages share."""

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "DelayS",
    "FileName",
    "GroupName",
    "Sha256",
]


Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="A SHA-256 in lower-case hexadecimal.")]
DelayS = Annotated[float, Meta(ge=0, le=86400)]
"""How many seconds to wait, on the agent, before the command acts."""
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
