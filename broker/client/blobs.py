"""The synchronous calls about blobs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from broker.client import blob_calls
from broker.client.calls import Call
from broker.client.files import ArrivingFile
from broker.fleet.blob_models import BlobView, StoredBlob
from broker.fleet.models import PageOf

__all__ = [
    "BlobClient",
]


_Answer = TypeVar("_Answer")


class BlobClient(ABC):
    """The part of `Client` for blobs."""

    def blobs(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[BlobView]:
        """Return a page of stored files, newest first."""
        return self._do(blob_calls.for_blobs(cursor, limit))

    def store_blob(self, path: Path, seen: Callable[[int], None] | None = None) -> StoredBlob:
        """Store a file, and return the artifact for the parameters of commands.

        It is read twice: for its SHA-256, and to be sent. `seen` gets how many of its bytes have been sent, from zero
        again if the request is repeated. Raises InvalidArgument if it cannot be read.
        """
        return self._do(blob_calls.to_store_blob(path, seen))

    def fetch_blob(self, sha256: str, path: Path) -> None:
        """Write the content of a stored file to `path`, where it is once it is whole.

        Raises InvalidArgument if it cannot be written.
        """
        self._receive(blob_calls.for_blob(sha256), lambda response: _save(response, sha256, path))

    def remove_blob(self, sha256: str) -> BlobView:
        """Delete a stored file, and return what it was."""
        return self._do(blob_calls.to_remove_blob(sha256))

    @abstractmethod
    def _do(self, call: Call[_Answer]) -> _Answer:
        """Return the answer to a call."""

    @abstractmethod
    def _receive(self, call: Call[_Answer], take: Callable[[httpx.Response], _Answer]) -> _Answer:
        """Return what `take` makes of the response to a call, whose content it reads."""


def _save(response: httpx.Response, sha256: str, path: Path) -> bytes:
    with ArrivingFile(path) as arriving:
        for piece in response.iter_raw():
            arriving.add(piece)
        if not arriving.finish(sha256):
            raise blob_calls.damaged_on_the_way(sha256)
    return b""
