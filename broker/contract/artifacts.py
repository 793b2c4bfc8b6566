"""References to files: where a file is, and how to verify it."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from broker.contract.fields import Sha256

__all__ = [
    "Artifact",
    "blob_url",
]


@dataclass(frozen=True)
class Artifact:
    """A file at an `https:`, `file:` or `blob:` URL, with its SHA-256 and its size in bytes.

    `blob:` with the SHA-256 is a file that the server stores and the agent fetches over MQTT.
    """

    url: str
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)]


def blob_url(sha256: str) -> str:
    """Return the URL of the blob with this SHA-256."""
    return f"blob:{sha256}"
