"""The requests of the API about blobs."""

from collections.abc import Callable
from pathlib import Path

from broker.client.calls import ApiUnreachable, Call, change_call, given_parameters
from broker.client.files import OutgoingFile, sha256_and_size
from broker.fleet.blob_models import BlobView, StoredBlob
from broker.fleet.models import PageOf

__all__ = [
    "damaged_on_the_way",
    "for_blob",
    "for_blobs",
    "to_remove_blob",
    "to_store_blob",
]


def for_blobs(cursor: str | None, limit: int) -> Call[PageOf[BlobView]]:
    """Return the call for a page of blobs."""
    return Call("GET", "/v1/blobs", PageOf[BlobView], given_parameters({"cursor": cursor, "limit": limit}))


def to_store_blob(path: Path, seen: Callable[[int], None] | None = None) -> Call[StoredBlob]:
    """Return the call that stores a file; `seen` gets how many bytes of it have been sent.

    Raises InvalidArgument if it cannot be read.
    """
    sha256, size = sha256_and_size(path)
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    query = {"file_name": path.name.encode(errors="backslashreplace").decode()}
    return Call("PUT", f"/v1/blobs/{sha256}", StoredBlob, query, headers=headers, file=OutgoingFile(path, seen))


def for_blob(sha256: str) -> Call[bytes]:
    """Return the call for the content of a blob."""
    return Call("GET", f"/v1/blobs/{sha256}", bytes)


def to_remove_blob(sha256: str) -> Call[BlobView]:
    """Return the call that removes a blob."""
    return change_call(f"/v1/blobs/{sha256}/remove", BlobView)


def damaged_on_the_way(sha256: str) -> ApiUnreachable:
    """Return the error for content that is not that of the blob."""
    return ApiUnreachable(f"What arrived is not the blob {sha256}: it was damaged on the way; fetch it again.")
