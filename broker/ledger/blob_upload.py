"""Stores a blob piece by piece."""

import hashlib

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import MAX_BLOB_CHUNK_BYTES
from broker.ledger.also import Also, nothing_else
from broker.ledger.blob_errors import MAX_BLOB_BYTES, BlobTooLarge
from broker.ledger.blob_rows import BlobRows

__all__ = [
    "COMMIT_BYTES",
    "BlobUpload",
]


COMMIT_BYTES = 8 * MAX_BLOB_CHUNK_BYTES  # SQLite has one writer, and the server must not wait for a whole file


class BlobUpload:
    """A blob that is being stored: hidden until `finish`, and deleted by `drop`, or after a day if neither is called.

    Its methods raise LedgerError if the database fails.
    """

    def __init__(self, rows: BlobRows, blob_id: str) -> None:
        self._rows, self._id = rows, blob_id
        self._digest, self._size = hashlib.sha256(), 0
        self._unwritten = bytearray()

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was added."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        """Add what follows; it is written once there is enough for a transaction. Raises BlobTooLarge."""
        if self._size + len(self._unwritten) + len(data) > MAX_BLOB_BYTES:
            raise BlobTooLarge(f"A blob has at most {MAX_BLOB_BYTES} bytes; offer the file at an https: URL instead.")
        self._digest.update(data)
        self._unwritten += data
        while len(self._unwritten) >= COMMIT_BYTES:
            self._write(COMMIT_BYTES)

    def finish(self, also: Also[Artifact] = nothing_else) -> Artifact:
        """Make it visible, unless there is one with the same content, and return it as an artifact.

        `also` writes what belongs to it in the same transaction, if it is new.
        """
        if self._unwritten:
            self._write(len(self._unwritten))
        artifact = Artifact(blob_url(self.sha256), self.sha256, self._size)
        if not self._rows.name(self._id, artifact, also):
            self.drop()
        return artifact

    def drop(self) -> None:
        """Delete what was stored."""
        self._rows.delete(self._id)

    def _write(self, length: int) -> None:
        self._rows.insert_chunks(self._id, self._size, bytes(self._unwritten[:length]))
        del self._unwritten[:length]
        self._size += length
