"""Files are written completely or not at all, and links and hostile names are not followed."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.system.files import free_bytes, link_durably, sync_directory, write_durably, write_for_readers

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_file_is_written_with_its_mode_regardless_of_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "wish"
    before = os.umask(0o077)
    try:
        write_durably(path, b"one", 0o644)
    finally:
        os.umask(before)
    assert (path.read_bytes(), mode(path)) == (b"one", 0o644)
    write_durably(path, b"two")
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    assert os.listdir(tmp_path) == ["wish"]


def test_file_for_readers_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    for content in (b"one", b"two"):
        write_for_readers(path, content)
        assert (path.read_bytes(), mode(path)) == (content, 0o600)
    with pytest.raises(FileNotFoundError):
        write_for_readers(tmp_path / "missing" / "status.json", b"three")
    assert os.listdir(tmp_path) == ["status.json"]


def test_reader_sees_the_old_or_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "state"
    contents = {letter * 200_000 for letter in (b"a", b"b")}
    write_durably(path, b"a" * 200_000)
    ended = threading.Event()

    def write() -> None:
        for _ in range(10):
            for content in sorted(contents):
                write_durably(path, content)
        ended.set()

    writing = threading.Thread(target=write)
    writing.start()
    seen = set()
    while not ended.is_set():
        seen.add(path.read_bytes())
    writing.join()
    assert seen <= contents


WRITER = """
import sys
from pathlib import Path
from broker.system.files import write_durably
for _ in range(150):
    write_durably(Path(sys.argv[1]), sys.argv[2].encode() * 100_000)
"""


def test_several_processes_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_durably(path, b"a" * 100_000)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter], cwd=ROOT) for letter in "bcd"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.add(path.read_bytes())
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen <= {letter * 100_000 for letter in (b"a", b"b", b"c", b"d")}
    assert os.listdir(tmp_path) == ["state"]


def test_part_left_by_an_interrupted_write_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.with_name(".state.part").write_bytes(b"x" * 100)
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["state"]


def test_part_that_cannot_be_removed_stops_no_write(tmp_path: Path) -> None:
    for name in (".state.part", ".current.part"):
        (tmp_path / name / "of another user").mkdir(parents=True)
    write_durably(tmp_path / "state", b"new")
    link_durably(tmp_path / "current", "target")
    assert ((tmp_path / "state").read_bytes(), os.readlink(tmp_path / "current")) == (b"new", "target")
    assert sorted(os.listdir(tmp_path)) == [".current.part", ".state.part", "current", "state"]


def test_link_in_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".state.part").symlink_to(victim)
    write_durably(tmp_path / "state", b"new")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "state").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["state", "victim"]


def test_link_in_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "state"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    write_durably(path, b"new")
    assert (victim.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"precious", b"new", False)


def test_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_durably(path, b"new")
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "nowhere" / "state", b"new")
    assert path.is_dir()
    assert os.listdir(tmp_path) == ["state"]


def test_interrupted_write_leaves_no_part_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    write_durably(path, b"old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_durably(path, b"secret")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key.pem"]


def test_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "run this test as root: it gives a file away"
    path = tmp_path / "state"
    write_durably(path, b"old")
    os.chown(path, 65534, 65534)
    write_durably(path, b"new", 0o640)
    found = path.stat()
    assert (path.read_bytes(), found.st_uid, found.st_gid, mode(path)) == (b"new", 65534, 65534, 0o640)


def test_link_is_created_and_replaced_atomically(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    link_durably(link, "one")
    assert link.resolve() == tmp_path / "one"
    (tmp_path / ".current.part").symlink_to("what an interrupted swap left")
    link_durably(link, "two")
    assert os.readlink(link) == "two"
    assert sorted(os.listdir(tmp_path)) == ["current", "one", "two"]


def test_link_does_not_replace_a_directory(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(IsADirectoryError):
        link_durably(tmp_path / "current", "one")
    assert os.listdir(tmp_path) == ["current"]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "nowhere")


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    assert 0 < free_bytes(tmp_path) <= room.f_blocks * room.f_frsize
    with pytest.raises(FileNotFoundError):
        free_bytes(tmp_path / "nowhere")
