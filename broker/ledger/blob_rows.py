"""The rows of blobs, and the transactions that change them: each a few chunks, so that no other writer waits long."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import MAX_BLOB_CHUNK_BYTES
from broker.ledger.also import Also
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.ids import new_id
from broker.ledger.records import BlobRecord, read_one
from broker.ledger.tables import BLOB_CHUNKS, BLOBS
from broker.text import encodable

__all__ = [
    "BlobRows",
    "artifact_of",
    "blob_named",
]


_CHUNKS_PER_DELETION = 64
_ABANDONED_AFTER = timedelta(days=1)


class BlobRows:
    """The rows in the ledger's database. Every method raises LedgerError if that fails."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._transaction, self._reading = database.transaction, database.reading
        self._now = now

    def insert(self, file_name: str) -> str:
        """Insert a hidden blob without content, and return its id."""
        blob_id, added_at = new_id(), self._now().timestamp()
        self._insert(BLOBS, [{"id": blob_id, "size": 0, "file_name": encodable(file_name)[:255], "added_at": added_at}])
        return blob_id

    def insert_chunks(self, blob_id: str, start: int, block: bytes) -> None:
        """Insert what follows the first `start` bytes of a hidden blob."""
        places = range(0, len(block), MAX_BLOB_CHUNK_BYTES)
        rows = [{"blob": blob_id, "start": start + at, "data": block[at : at + MAX_BLOB_CHUNK_BYTES]} for at in places]
        self._insert(BLOB_CHUNKS, rows)

    @retry_conflicts
    def name(self, blob_id: str, artifact: Artifact, also: Also[Artifact]) -> bool:
        """Make a hidden blob visible, unless another process has stored the same content in the meantime.

        `also` writes what belongs to it in the same transaction.
        """
        with self._transaction() as connection:
            if blob_named(connection, artifact.sha256) is not None:
                return False
            named = BLOBS.update().where(BLOBS.c.id == blob_id)
            connection.execute(named.values(sha256=artifact.sha256, size=artifact.size))
            also(connection, artifact)
        return True

    def delete(self, blob_id: str) -> None:
        """Delete a hidden blob, a few chunks at a time; one that is visible stays."""
        while self._delete_some_chunks(blob_id):
            pass

    def delete_abandoned(self) -> None:
        """Delete blobs that a killed process left half stored or half removed."""
        before = (self._now() - _ABANDONED_AFTER).timestamp()
        abandoned = sa.select(BLOBS.c.id).where(BLOBS.c.sha256.is_(None), BLOBS.c.added_at < before)
        with self._reading() as connection:
            ids: Sequence[str] = connection.scalars(abandoned).all()
        for blob_id in ids:
            self.delete(blob_id)

    @retry_conflicts
    def _insert(self, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        with self._transaction() as connection:
            connection.execute(table.insert(), rows)

    @retry_conflicts
    def _delete_some_chunks(self, blob_id: str) -> bool:
        is_blob = BLOB_CHUNKS.c.blob == blob_id
        batch = sa.select(BLOB_CHUNKS.c.start).where(is_blob).limit(_CHUNKS_PER_DELETION)
        hidden = sa.select(BLOBS.c.id).where(BLOBS.c.id == blob_id, BLOBS.c.sha256.is_(None))
        with self._transaction() as connection:
            if connection.scalar(hidden) is None:
                return False
            starts = connection.scalars(batch).all()
            if starts:
                connection.execute(BLOB_CHUNKS.delete().where(is_blob, BLOB_CHUNKS.c.start.in_(starts)))
            else:
                connection.execute(BLOBS.delete().where(BLOBS.c.id == blob_id))
        return bool(starts)


def blob_named(connection: sa.Connection, name: str) -> BlobRecord | None:
    """Return the visible blob with this SHA-256, or None."""
    return read_one(connection, BLOBS.select().where(BLOBS.c.sha256 == name), BlobRecord)


def artifact_of(blob: BlobRecord) -> Artifact:
    """Return a visible blob as an artifact."""
    name = blob.sha256 or ""
    return Artifact(blob_url(name), name, blob.size)
