"""Blobs: files that agents fetch over MQTT, stored in chunks in the database of the commands that refer to them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import MAX_BLOB_CHUNK_BYTES, BlobChunk, BlobRequest
from broker.errors import BrokerError
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.ids import new_id
from broker.ledger.records import BlobRecord, read_all, read_one
from broker.ledger.tables import BLOB_CHUNKS, BLOBS, COMMANDS, GROUP_CONFIGURATIONS, CommandState, utc
from broker.text import encodable

__all__ = [
    "MAX_BLOB_BYTES",
    "BlobError",
    "BlobRow",
    "BlobStore",
]


MAX_BLOB_BYTES = 1 << 28
_COMMIT_BYTES = 8 * MAX_BLOB_CHUNK_BYTES  # SQLite has one writer, and the server must not wait for a whole file
_CHUNKS_PER_DELETION = 64
_ABANDONED_AFTER = timedelta(days=1)


class BlobError(BrokerError):
    """A file cannot be stored as a blob, or a blob does not exist or cannot be removed."""

    code = "blob_error"


@dataclass(frozen=True)
class BlobRow:
    """One blob: its artifact, the name of its source file, and when it was added (UTC)."""

    artifact: Artifact
    file_name: str
    added_at: datetime


class BlobStore:
    """The blobs in the ledger's database, each named by its SHA-256 and stored once.

    All methods raise LedgerError when the database fails. No transaction reads or writes more than a few chunks.
    """  # design.md: "Files go over MQTT when the agent requests them, piece by piece."

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._transaction = database.transaction
        self._reading = database.reading
        self._now = now

    def put(self, path: Path) -> Artifact:
        """Store a file of at most MAX_BLOB_BYTES, and return it as an artifact. Raises BlobError."""
        try:
            if not path.is_file():
                raise BlobError(f"{path} is not a file; name one to store.", code="not_a_file")
            if path.stat().st_size > MAX_BLOB_BYTES:
                raise BlobError(
                    f"{path} has more than {MAX_BLOB_BYTES} bytes; offer it at an https: URL instead.", code="too_large"
                )
            with path.open("rb") as file:
                known = self._find(hashlib.file_digest(file, "sha256").hexdigest())
                file.seek(0)
                return known or self._store(file, path.name)
        except OSError as error:
            raise BlobError(f"{path} cannot be read: {error.strerror}.", code="unreadable") from error

    def rows(self) -> list[BlobRow]:
        """Return all blobs, newest first."""
        query = BLOBS.select().where(BLOBS.c.sha256.is_not(None)).order_by(BLOBS.c.added_at.desc())
        with self._reading() as connection:
            blobs = read_all(connection, query, BlobRecord)
        return [BlobRow(_artifact(it), it.file_name, utc(it.added_at)) for it in blobs]

    def remove(self, name: str) -> None:
        """Remove the blob with this SHA-256. Raises BlobError if it does not exist or is in use."""
        self._delete_chunks(self._hide(name))

    @retry_conflicts
    def _hide(self, name: str) -> str:
        with self._transaction() as connection:
            blob = _by_name(connection, name)
            if blob is None:
                raise BlobError(f"There is no blob {name[:80]!r}; `acm blob list` shows them.", code="unknown_blob")
            user = connection.execute(_open_commands(name).limit(1)).one_or_none()
            if user is not None:
                command_id, agent = user
                raise BlobError(
                    f"The blob {name} is needed by the open command {command_id} to {agent}; cancel that first.",
                    code="in_use",
                )
            group = connection.scalar(_configured_groups(name).limit(1))
            if group is not None:
                raise BlobError(
                    f"The blob {name} is the configuration of the group {group}; configure another one first.",
                    code="in_use",
                )
            connection.execute(BLOBS.update().where(BLOBS.c.id == blob.id).values(sha256=None))
        return blob.id

    def chunk(self, agent: str, request: BlobRequest) -> BlobChunk:
        """Return the first chunk of the requested part, or the reason why the agent gets nothing.

        An agent gets the blobs that its open commands refer to, and no others.
        """
        with self._reading() as connection:
            if connection.execute(_open_commands(request.name, agent).limit(1)).one_or_none() is None:
                return _refusal(request, f"No open command to {agent} refers to the blob {request.name}.")
            blob = _by_name(connection, request.name)
            if blob is None:
                return _refusal(request, f"The server has no blob {request.name}; store it with `acm blob put FILE`.")
            start, stored = connection.execute(_chunk_at(blob.id, request.offset)).one_or_none() or (0, b"")
        skipped = request.offset - start
        data = bytes(stored)[skipped : skipped + request.length]
        if not data:
            return _refusal(request, f"The blob {request.name} ends at {blob.size}, before {request.offset}.")
        return BlobChunk(request.name, request.offset, blob.size, data)

    def _find(self, name: str) -> Artifact | None:
        with self._reading() as connection:
            blob = _by_name(connection, name)
        return None if blob is None else _artifact(blob)

    def _store(self, file: BinaryIO, file_name: str) -> Artifact:
        self._drop_abandoned()
        blob_id, digest, size = new_id(), hashlib.sha256(), 0
        new = {"id": blob_id, "size": 0, "file_name": encodable(file_name)[:255], "added_at": self._now().timestamp()}
        self._insert(BLOBS, [new])
        while block := file.read(_COMMIT_BYTES):
            self._insert(BLOB_CHUNKS, _chunk_rows(blob_id, size, block))
            digest.update(block)
            size += len(block)
        return self._show(blob_id, digest.hexdigest(), size)

    @retry_conflicts
    def _insert(self, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        with self._transaction() as connection:
            connection.execute(table.insert(), rows)

    def _show(self, blob_id: str, name: str, size: int) -> Artifact:
        """Make a stored blob visible, unless another process stored the same content in the meantime."""
        if not self._name(blob_id, name, size):
            self._delete_chunks(blob_id)
        return Artifact(blob_url(name), name, size)

    @retry_conflicts
    def _name(self, blob_id: str, name: str, size: int) -> bool:
        with self._transaction() as connection:
            if _by_name(connection, name) is not None:
                return False
            connection.execute(BLOBS.update().where(BLOBS.c.id == blob_id).values(sha256=name, size=size))
        return True

    def _drop_abandoned(self) -> None:
        """Delete blobs that a killed process left half stored or half removed."""
        before = (self._now() - _ABANDONED_AFTER).timestamp()
        abandoned = sa.select(BLOBS.c.id).where(BLOBS.c.sha256.is_(None), BLOBS.c.added_at < before)
        with self._reading() as connection:
            ids = connection.scalars(abandoned).all()
        for blob_id in ids:
            self._delete_chunks(blob_id)

    def _delete_chunks(self, blob_id: str) -> None:
        """Delete a hidden blob, a few chunks at a time."""
        while self._delete_some_chunks(blob_id):
            pass

    @retry_conflicts
    def _delete_some_chunks(self, blob_id: str) -> bool:
        is_blob = BLOB_CHUNKS.c.blob == blob_id
        batch = sa.select(BLOB_CHUNKS.c.start).where(is_blob).limit(_CHUNKS_PER_DELETION)
        with self._transaction() as connection:
            starts = connection.scalars(batch).all()
            if starts:
                connection.execute(BLOB_CHUNKS.delete().where(is_blob, BLOB_CHUNKS.c.start.in_(starts)))
            else:
                connection.execute(BLOBS.delete().where(BLOBS.c.id == blob_id))
        return bool(starts)


def _by_name(connection: sa.Connection, name: str) -> BlobRecord | None:
    return read_one(connection, BLOBS.select().where(BLOBS.c.sha256 == name), BlobRecord)


def _artifact(blob: BlobRecord) -> Artifact:
    name = blob.sha256 or ""
    return Artifact(blob_url(name), name, blob.size)


def _open_commands(name: str, agent: str | None = None) -> sa.Select[Any]:
    """Select the open commands whose JSON contains the blob's URL as a whole string."""
    not_completed = [state for state in CommandState if state is not CommandState.COMPLETED]
    query = sa.select(COMMANDS.c.id, COMMANDS.c.agent).where(COMMANDS.c.state.in_(not_completed))
    query = query.where(COMMANDS.c.body.contains(f'"{blob_url(name)}"', autoescape=True))
    return query if agent is None else query.where(COMMANDS.c.agent == agent)


def _configured_groups(name: str) -> sa.Select[Any]:
    return sa.select(GROUP_CONFIGURATIONS.c.group).where(GROUP_CONFIGURATIONS.c.sha256 == name)


def _chunk_rows(blob_id: str, start: int, block: bytes) -> list[dict[str, Any]]:
    places = range(0, len(block), MAX_BLOB_CHUNK_BYTES)
    return [{"blob": blob_id, "start": start + at, "data": block[at : at + MAX_BLOB_CHUNK_BYTES]} for at in places]


def _chunk_at(blob_id: str, offset: int) -> sa.Select[Any]:
    query = sa.select(BLOB_CHUNKS.c.start, BLOB_CHUNKS.c.data).where(
        BLOB_CHUNKS.c.blob == blob_id, BLOB_CHUNKS.c.start <= offset
    )
    return query.order_by(BLOB_CHUNKS.c.start.desc()).limit(1)


def _refusal(request: BlobRequest, reason: str) -> BlobChunk:
    return BlobChunk(request.name, request.offset, error=reason)
