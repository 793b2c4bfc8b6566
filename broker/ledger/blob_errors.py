"""The errors of blobs."""

from broker.errors import BrokerError

__all__ = [
    "MAX_BLOB_BYTES",
    "BlobError",
    "BlobInUse",
    "BlobTooLarge",
    "UnknownBlob",
]


MAX_BLOB_BYTES = 1 << 28


class BlobError(BrokerError):
    """A file cannot be stored as a blob, or a blob does not exist or cannot be removed."""

    code = "blob_error"


class UnknownBlob(BlobError):
    """No blob has this SHA-256."""

    code = "unknown_blob"


class BlobInUse(BlobError):
    """A blob cannot be removed: an open command or the configuration of a group refers to it."""

    code = "in_use"


class BlobTooLarge(BlobError):
    """A file has more bytes than a blob may have."""

    code = "too_large"
