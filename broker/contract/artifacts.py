"""A file that a command refers to instead of carrying it: where it is, and how to know that it is the right one."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

__all__ = ["Artifact", "Sha256"]

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", description="A SHA-256 in lower-case hexadecimal.")]


@dataclass(frozen=True)
class Artifact:
    """A file at an `https:` or `file:` URL, with its SHA-256 and its size in bytes."""

    url: str
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]
