"""Blobs as an operator sees them: the shapes that the API and its client share. Times are UTC."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from broker.fleet.described import says

__all__ = [
    "BlobView",
    "StoredBlob",
]


_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


@dataclass(frozen=True)
class StoredBlob:
    """A stored file, as the parameters of commands refer to it."""

    url: Annotated[str, says("`blob:` with the SHA-256.", f"blob:{_SHA256}")]
    sha256: Annotated[str, says("The SHA-256 of the content, hexadecimal.", _SHA256)]
    size: Annotated[int, says("Its length in bytes.", 4)]


@dataclass(frozen=True)
class BlobView(StoredBlob):
    """A stored file, with the name that it was stored under."""

    file_name: Annotated[str, says("The name of the file that it was stored from.", "agent-2.0.tar.gz")]
    added_at: Annotated[datetime, says("When it was stored.")]
