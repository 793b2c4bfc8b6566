"""What a group is configured with: the shape that the API and its client share."""

from dataclasses import dataclass
from typing import Annotated

from broker.fleet.described import says

__all__ = [
    "GroupConfigurationRequest",
]


@dataclass(frozen=True)
class GroupConfigurationRequest:
    """The configuration of a group: a file, or an archive of several, that is stored as a blob."""

    sha256: Annotated[
        str,
        says(
            "The SHA-256 of the stored file, hexadecimal.",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            pattern="^[0-9a-f]{64}$",
        ),
    ]
