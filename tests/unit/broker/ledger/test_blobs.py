"""Blobs, in a real database."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.app.factories import open_database
from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import BlobRequest, Origin
from broker.ledger.blob_errors import MAX_BLOB_BYTES, BlobError
from broker.ledger.blobs import BlobStore
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import BLOB_CHUNKS
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback

CONTENT = random.Random(1).randbytes(3_000_000)
ORIGIN = Origin("me", "test")


@pytest.fixture
def ledger(ledger_url: str, clock: TurnedClock) -> Iterator[Ledger]:
    opened = Ledger(open_database(ledger_url), now=clock.now)
    yield opened
    opened.database.close()


class Writing:
    """A database whose writing transactions are those of a test."""

    def __init__(self, database: Database, transaction: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self.reading, self.transaction = database.reading, transaction


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "agent.tar.gz"
    path.write_bytes(CONTENT)
    return path


def refer(ledger: Ledger, blob: Artifact, agent: str = "web-01") -> str:
    return ledger.add_command(agent, CommandRequest("upgrade-agent", {"package": vars(blob)}, ORIGIN)).id


def read(ledger: Ledger, blob: Artifact, length: int) -> bytes:
    got = b""
    while len(got) < blob.size:
        chunk = ledger.blobs.chunk("web-01", BlobRequest(blob.sha256, len(got), length))
        assert chunk.data, chunk.error
        got += chunk.data
    return got


def chunk_rows(ledger: Ledger) -> int:
    with ledger._transaction() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(BLOB_CHUNKS)) or 0


@pytest.mark.parametrize("length", [1 << 20, 100_000])
def test_file_is_read_back_in_chunks_of_any_length(ledger: Ledger, path: Path, length: int) -> None:
    blob = ledger.blobs.put(path)
    refer(ledger, blob)
    assert read(ledger, blob, length) == CONTENT


def test_same_content_is_stored_once(ledger: Ledger, path: Path) -> None:
    blob = ledger.blobs.put(path)
    rows = chunk_rows(ledger)
    assert ledger.blobs.put(path.rename(path.with_name("another"))) == blob
    assert chunk_rows(ledger) == rows
    assert [(row.artifact, row.file_name) for row in ledger.blobs.rows()] == [(blob, "agent.tar.gz")]


def test_file_being_stored_is_invisible_and_blocks_no_writer(
    ledger: Ledger, path: Path, ledger_url: str, clock: TurnedClock
) -> None:
    server = Ledger(open_database(ledger_url), now=clock.now)
    seen: list[int] = []

    @contextmanager
    def transaction() -> Iterator[sa.Connection]:
        with ledger._transaction() as connection:
            yield connection
        server.add_command("web-01", CommandRequest("restart-agent", {}, ORIGIN))
        seen.append(len(server.blobs.rows()))

    BlobStore(Writing(ledger.database, transaction), clock.now).put(path)
    server.database.close()
    assert len(seen) > 3
    assert seen == [0] * (len(seen) - 1) + [1]


def test_half_stored_blob_of_a_killed_process_is_deleted_a_day_later(
    ledger: Ledger, path: Path, clock: TurnedClock
) -> None:
    class Killed(BaseException):
        pass

    @contextmanager
    def transaction() -> Iterator[sa.Connection]:
        with ledger._transaction() as connection:
            yield connection
        if chunk_rows(ledger):
            raise Killed

    with pytest.raises(Killed):
        BlobStore(Writing(ledger.database, transaction), clock.now).put(path)
    assert chunk_rows(ledger) > 0
    assert ledger.blobs.rows() == []
    clock.turn(2 * 86400.0)
    path.write_bytes(b"")
    empty = ledger.blobs.put(path)
    assert (empty.size, chunk_rows(ledger)) == (0, 0)


def test_agent_gets_the_blobs_of_its_open_commands_only(ledger: Ledger, path: Path) -> None:
    blob = ledger.blobs.put(path)
    wanted = BlobRequest(blob.sha256, 0, 10)
    ledger.add_command("web-01", CommandRequest("restart-agent", {"text": f"not {blob.url} itself"}, ORIGIN))
    assert "No open command to web-01 refers to" in (ledger.blobs.chunk("web-01", wanted).error or "")
    command_id = refer(ledger, blob)
    assert ledger.blobs.chunk("web-01", wanted).data == CONTENT[:10]
    assert ledger.blobs.chunk("web-02", wanted).data is None
    record_feedback(ledger, "web-01", [result(command_id)])
    assert ledger.blobs.chunk("web-01", wanted).data is None


def test_unknown_blob_and_offset_after_its_end_are_refused(ledger: Ledger, path: Path) -> None:
    blob = ledger.blobs.put(path)
    gone = Artifact(blob_url("0" * 64), "0" * 64, 1)
    refer(ledger, blob)
    refer(ledger, gone)
    assert "The server has no blob" in (ledger.blobs.chunk("web-01", BlobRequest(gone.sha256, 0, 1)).error or "")
    behind = ledger.blobs.chunk("web-01", BlobRequest(blob.sha256, blob.size, 1))
    assert f"ends at {blob.size}" in (behind.error or "")


def test_blob_is_removed_once_no_open_command_needs_it(ledger: Ledger, path: Path) -> None:
    blob = ledger.blobs.put(path)
    command_id = refer(ledger, blob)
    with raises_code(BlobError, "in_use") as refused:
        ledger.blobs.remove(blob.sha256)
    assert f"{command_id} to web-01" in str(refused.value)
    record_feedback(ledger, "web-01", [result(command_id)])
    ledger.blobs.remove(blob.sha256)
    assert (ledger.blobs.rows(), chunk_rows(ledger)) == ([], 0)
    with raises_code(BlobError, "unknown_blob"):
        ledger.blobs.remove(blob.sha256)


def test_directory_and_too_large_file_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    with raises_code(BlobError, "not_a_file"):
        ledger.blobs.put(tmp_path)
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, MAX_BLOB_BYTES + 1)
    with raises_code(BlobError, "too_large"):
        ledger.blobs.put(large)
    assert chunk_rows(ledger) == 0


def test_file_that_cannot_be_examined_is_refused(ledger: Ledger) -> None:
    with raises_code(BlobError, "unreadable"):
        ledger.blobs.put(Path("/" + "x" * 1000))


def test_file_that_another_process_stores_meanwhile_is_stored_once(
    ledger: Ledger, path: Path, clock: TurnedClock
) -> None:
    first: list[Artifact] = []

    def now() -> datetime:
        if not first:
            first.append(ledger.blobs.put(path))
        return clock.now()

    second = BlobStore(ledger.database, now).put(path)
    assert ([second], [row.artifact for row in ledger.blobs.rows()]) == (first, first)
    refer(ledger, second)
    assert read(ledger, second, 1 << 20) == CONTENT
    with ledger.database.transaction() as connection:
        owners = connection.scalars(sa.select(BLOB_CHUNKS.c.blob).distinct()).all()
    assert len(owners) == 1
