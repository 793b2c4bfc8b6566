"""Blobs: files that agents fetch over MQTT, stored in chunks in the database of the commands that refer to them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import BlobChunk, BlobRequest
from broker.ledger.also import Also, nothing_else
from broker.ledger.blob_errors import MAX_BLOB_BYTES, BlobError, BlobInUse, BlobTooLarge, UnknownBlob
from broker.ledger.blob_rows import BlobRows, artifact_of, blob_named
from broker.ledger.blob_upload import COMMIT_BYTES, BlobUpload
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.pages import newest_by_id
from broker.ledger.records import BlobRecord, read_all
from broker.ledger.tables import BLOB_CHUNKS, BLOBS, COMMANDS, GROUP_CONFIGURATIONS, CommandState, utc

__all__ = [
    "BlobRow",
    "BlobStore",
]


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
        self._rows = BlobRows(database, now)

    def put(self, path: Path, seen: Callable[[int], None] | None = None) -> Artifact:
        """Store a file of at most MAX_BLOB_BYTES, and return it as an artifact. Raises BlobError.

        `seen` gets how many of its bytes are stored, after each commit.
        """
        try:
            if not path.is_file():
                raise BlobError(f"{path} is not a file; name one to store.", code="not_a_file")
            if path.stat().st_size > MAX_BLOB_BYTES:
                raise BlobTooLarge(f"{path} has more than {MAX_BLOB_BYTES} bytes; offer it at an https: URL instead.")
            with path.open("rb") as file:
                known = self._find(hashlib.file_digest(file, "sha256").hexdigest())
                if known is not None:
                    return known
                file.seek(0)
                upload = self.begin(path.name)
                while block := file.read(COMMIT_BYTES):
                    upload.add(block)
                    if seen is not None:
                        seen(file.tell())
                return upload.finish()
        except OSError as error:
            raise BlobError(f"{path} cannot be read: {error.strerror}.", code="unreadable") from error

    def begin(self, file_name: str) -> BlobUpload:
        """Return what stores a file of this name piece by piece."""
        self._rows.delete_abandoned()
        return BlobUpload(self._rows, self._rows.insert(file_name))

    def rows(self) -> list[BlobRow]:
        """Return all blobs, newest first."""
        with self._reading() as connection:
            blobs = read_all(connection, _VISIBLE.order_by(BLOBS.c.added_at.desc()), BlobRecord)
        return list(map(_row, blobs))

    def page(self, cursor: str | None, limit: int) -> tuple[list[BlobRow], str | None]:
        """Return at most `limit` blobs, newest first, and the cursor for more; None at the end.

        Raises InvalidArgument for a cursor of another list.
        """
        with self._reading() as connection:
            found, end = newest_by_id(connection, _VISIBLE, BLOBS.c.id, cursor, limit)
        return [_row(BlobRecord(*tuple(it))) for it in found], end

    def find(self, name: str) -> BlobRow:
        """Return the blob with this SHA-256. Raises UnknownBlob."""
        with self._reading() as connection:
            return _row(_known(connection, name))

    def read(self, name: str, first: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of the blob with this SHA-256 from `first` to before `end`, a chunk at a time.

        Raises UnknownBlob, also if it is removed meanwhile, and BlobError if it is damaged.
        """
        while first < end:
            with self._reading() as connection:
                place = _chunk_at(_known(connection, name).id, first)
                start, stored = connection.execute(place).one_or_none() or (0, b"")
            data = bytes(stored)[first - start : end - start]
            if not data:
                raise BlobError(f"The blob {name} is damaged from byte {first} on.", code="damaged_blob")
            first += len(data)
            yield data

    def remove(self, name: str, also: Also[BlobRow] = nothing_else) -> BlobRow:
        """Remove the blob with this SHA-256, and return what it was. Raises UnknownBlob and BlobInUse.

        `also` writes what belongs to it in the same transaction.
        """
        blob = self._hide(name, also)
        self._rows.delete(blob.id)
        return _row(blob)

    @retry_conflicts
    def _hide(self, name: str, also: Also[BlobRow]) -> BlobRecord:
        with self._transaction() as connection:
            blob = _known(connection, name)
            user = connection.execute(_open_commands(name).limit(1)).one_or_none()
            if user is not None:
                command_id, agent = user
                raise BlobInUse(
                    f"The blob {name} is needed by the open command {command_id} to {agent}; cancel that first."
                )
            group = connection.scalar(_configured_groups(name).limit(1))
            if group is not None:
                raise BlobInUse(
                    f"The blob {name} is the configuration of the group {group}; configure another one first."
                )
            connection.execute(BLOBS.update().where(BLOBS.c.id == blob.id).values(sha256=None))
            also(connection, _row(blob))
        return blob

    def chunk(self, agent: str, request: BlobRequest) -> BlobChunk:
        """Return the first chunk of the requested part, or the reason why the agent gets nothing.

        An agent gets the blobs that its open commands refer to, and no others.
        """
        with self._reading() as connection:
            if connection.execute(_open_commands(request.name, agent).limit(1)).one_or_none() is None:
                return _refusal(request, f"No open command to {agent} refers to the blob {request.name}.")
            blob = blob_named(connection, request.name)
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
            blob = blob_named(connection, name)
        return None if blob is None else artifact_of(blob)


_VISIBLE = BLOBS.select().where(BLOBS.c.sha256.is_not(None))


def _known(connection: sa.Connection, name: str) -> BlobRecord:
    blob = blob_named(connection, name)
    if blob is None:
        raise UnknownBlob(f"There is no blob {name[:80]!r}; `acm blob list` shows them.")
    return blob


def _row(blob: BlobRecord) -> BlobRow:
    return BlobRow(artifact_of(blob), blob.file_name, utc(blob.added_at))


def _open_commands(name: str, agent: str | None = None) -> sa.Select[Any]:
    """Select the open commands whose JSON contains the blob's URL as a whole string."""
    not_completed = [state for state in CommandState if state is not CommandState.COMPLETED]
    query = sa.select(COMMANDS.c.id, COMMANDS.c.agent).where(COMMANDS.c.state.in_(not_completed))
    query = query.where(COMMANDS.c.body.contains(f'"{blob_url(name)}"', autoescape=True))
    return query if agent is None else query.where(COMMANDS.c.agent == agent)


def _configured_groups(name: str) -> sa.Select[Any]:
    return sa.select(GROUP_CONFIGURATIONS.c.group).where(GROUP_CONFIGURATIONS.c.sha256 == name)


def _chunk_at(blob_id: str, offset: int) -> sa.Select[Any]:
    query = sa.select(BLOB_CHUNKS.c.start, BLOB_CHUNKS.c.data).where(
        BLOB_CHUNKS.c.blob == blob_id, BLOB_CHUNKS.c.start <= offset
    )
    return query.order_by(BLOB_CHUNKS.c.start.desc()).limit(1)


def _refusal(request: BlobRequest, reason: str) -> BlobChunk:
    return BlobChunk(request.name, request.offset, error=reason)
