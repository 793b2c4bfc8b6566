"""What an operator can do with blobs, on a ledger or over the API."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from broker.fleet.blob_models import BlobView, StoredBlob
from broker.fleet.models import PageOf

__all__ = [
    "StoredBlobs",
]


class StoredBlobs(Protocol):
    """The files that agents fetch. Lists are read in pages, as those of `Fleet`. Every method may raise LedgerError."""

    def blobs(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[BlobView]:
        """Return a page of stored files, newest first. Raises InvalidArgument for a cursor."""

    def store_blob(self, path: Path, seen: Callable[[int], None] | None = None) -> StoredBlob:
        """Store a file, once, and return it as the parameters of commands refer to it.

        `seen` gets how many of its bytes have been sent, as they are. Raises BlobTooLarge, and InvalidArgument for
        what is not a file that can be read.
        """

    def remove_blob(self, sha256: str) -> BlobView:
        """Delete a stored file, and return what it was. Raises UnknownBlob and BlobInUse."""
