"""Downloads that end early and are taken up again."""

import hashlib
import os
import random
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from broker.contract.artifacts import Artifact, blob_url
from consumer.errors import DownloadError
from consumer.handler import Context
from consumer.services import NoService
from consumer.settings import DownloadConfig
from consumer.system.downloads import Downloader
from consumer.system.leftovers import Leftovers
from consumer.system.partial_files import drop_stale_files
from tests.support.errors import raises_code
from tests.support.fakes.blobs import MemoryBlobs
from tests.support.fakes.clock import TurnedClock

CONTENT = random.Random(1).randbytes(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ARTIFACT = Artifact(blob_url(SHA256), SHA256, len(CONTENT))
FOREVER = float("inf")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def downloader(blobs: MemoryBlobs | None, state: Path, deadline_s: float = FOREVER) -> Downloader:
    clock = blobs.clock if blobs else TurnedClock()
    context = Context(clock, NoService(), state, blobs=blobs)
    assert context.downloader().partial == state / "downloads"
    return Downloader(
        DownloadConfig(), clock, clock.monotonic() + deadline_s, threading.Event(), blobs, state / "downloads"
    )


def parts(state: Path) -> list[Path]:
    return list((state / "downloads").iterdir())


def test_download_continues_where_the_last_one_ended(clock: TurnedClock, tmp_path: Path, to: Path) -> None:
    blobs = MemoryBlobs(clock, CONTENT, until=40_000)
    with raises_code(DownloadError, "timed_out"):
        downloader(blobs, tmp_path, deadline_s=30.0).fetch(ARTIFACT, to)
    assert not to.exists()
    assert [part.stat().st_size for part in parts(tmp_path)] == [40_000]
    blobs.until = len(CONTENT)
    downloader(blobs, tmp_path).fetch(ARTIFACT, to)
    assert to.read_bytes() == CONTENT
    assert blobs.offsets == [0, 40_000]
    assert parts(tmp_path) == []


def test_damaged_part_is_downloaded_again(clock: TurnedClock, tmp_path: Path, to: Path) -> None:
    blobs = MemoryBlobs(clock, CONTENT)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / f"{SHA256}.part").write_bytes(bytes(70_000))
    downloader(blobs, tmp_path).fetch(ARTIFACT, to)
    assert to.read_bytes() == CONTENT
    assert blobs.offsets == [70_000, 0]


def test_a_file_with_another_hash_is_refused_and_not_kept(clock: TurnedClock, tmp_path: Path, to: Path) -> None:
    with raises_code(DownloadError, "wrong_sha256"):
        downloader(MemoryBlobs(clock, bytes(len(CONTENT))), tmp_path).fetch(ARTIFACT, to)
    assert (to.exists(), parts(tmp_path)) == (False, [])


def test_blob_url_with_another_hash_is_refused(clock: TurnedClock, tmp_path: Path, to: Path) -> None:
    with raises_code(DownloadError, "wrong_blob_name"):
        downloader(MemoryBlobs(clock, CONTENT), tmp_path).fetch(Artifact(blob_url("0" * 64), SHA256, 5), to)


def test_without_a_server_to_ask_a_blob_is_refused(tmp_path: Path, to: Path) -> None:
    with raises_code(DownloadError, "unknown_scheme"):
        downloader(None, tmp_path).fetch(ARTIFACT, to)


def test_a_cancelled_download_ends(clock: TurnedClock, tmp_path: Path, to: Path) -> None:
    fetching = downloader(MemoryBlobs(clock, CONTENT, until=0), tmp_path)
    fetching.cancelled.set()
    with raises_code(DownloadError, "cancelled"):
        fetching.fetch(ARTIFACT, to)


def test_unwritable_target_of_a_blob_is_an_error(clock: TurnedClock, tmp_path: Path) -> None:
    with raises_code(DownloadError, "not_written"):
        downloader(MemoryBlobs(clock, CONTENT), tmp_path).fetch(ARTIFACT, tmp_path / "nowhere" / "copy")


def test_a_file_moves_to_another_file_system(clock: TurnedClock, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        to = Path(elsewhere, "copy")
        downloader(MemoryBlobs(clock, CONTENT), tmp_path).fetch(ARTIFACT, to)
        assert to.read_bytes() == CONTENT
    assert parts(tmp_path) == []


def test_at_most_four_partial_files_are_kept_for_a_week(clock: TurnedClock, tmp_path: Path, to: Path) -> None:
    (tmp_path / "downloads").mkdir()
    for age in range(9):
        part = tmp_path / "downloads" / f"{age}.part"
        part.touch()
        os.utime(part, ((clock.now() - timedelta(days=age)).timestamp(),) * 2)
    with raises_code(DownloadError, "timed_out"):
        downloader(MemoryBlobs(clock, CONTENT, until=1000), tmp_path, deadline_s=1.0).fetch(ARTIFACT, to)
    names = sorted(part.name for part in parts(tmp_path))
    assert names == sorted(["0.part", "1.part", "2.part", f"{SHA256}.part"])
    drop_stale_files(tmp_path / "downloads", clock.now() + timedelta(days=5.5), Leftovers())
    assert "2.part" not in [part.name for part in parts(tmp_path)]
    assert "1.part" in [part.name for part in parts(tmp_path)]


def test_a_local_file_still_needs_no_server(tmp_path: Path, to: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    downloader(None, tmp_path).fetch(Artifact(source.as_uri(), SHA256, len(CONTENT)), to)
    assert to.read_bytes() == CONTENT
