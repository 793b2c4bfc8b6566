"""The blobs of a ledger, as an operator sees them."""

from collections.abc import Callable
from pathlib import Path

from broker.fleet.blob_models import BlobView, StoredBlob
from broker.fleet.models import MAX_PAGE, PageOf
from broker.ledger.blobs import BlobRow, BlobStore

__all__ = [
    "LedgerBlobs",
    "view_of_blob",
]


class LedgerBlobs:
    """The `StoredBlobs` of a ledger."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def blobs(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[BlobView]:
        """Return a page of stored files, newest first."""
        rows, end = self._store.page(cursor, min(limit, MAX_PAGE))
        return PageOf(tuple(map(view_of_blob, rows)), end)

    def store_blob(self, path: Path, seen: Callable[[int], None] | None = None) -> StoredBlob:
        """Store a file, once, and return it as the parameters of commands refer to it."""
        return StoredBlob(**vars(self._store.put(path, seen)))

    def remove_blob(self, sha256: str) -> BlobView:
        """Delete a stored file, and return what it was."""
        return view_of_blob(self._store.remove(sha256))


def view_of_blob(row: BlobRow) -> BlobView:
    """Return a stored file as an operator sees it."""
    return BlobView(**vars(row.artifact), file_name=row.file_name, added_at=row.added_at)
