"""Trees of any shape are removed, without what their links and mounts lead to; what stays is named."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.system.trees import files_below, paths_below, remove_tree, sync_tree
from tests.support.unprivileged import as_nobody, directory_of_nobody

ROOT = Path(__file__).parents[4]
DEPTH = 1200  # more than Python's limit of recursion
LONG = "d" * 250  # so many of them are a path longer than the kernel accepts


@pytest.fixture(autouse=True)
def _nothing_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before


def make_deep(directory: Path, name: str, depth: int = DEPTH) -> None:
    handle = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)


@pytest.mark.parametrize("name", ["d", LONG], ids=["deep", "longer than a path"])
def test_tree_of_any_depth_is_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / "tree" / "beside").mkdir(parents=True)
    make_deep(tmp_path / "tree", name)
    remove_tree(tmp_path / "tree")
    assert os.listdir(tmp_path) == []


def test_entries_of_each_kind_and_name_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (b"new\nline", b"\xff", b"-rf", b" ", b"x" * 255):
        Path(os.fsdecode(os.path.join(os.fsencode(tree), name))).touch()
    os.mkfifo(tree / "fifo")
    (tree / "sparse").touch()
    os.truncate(tree / "sparse", 1 << 40)
    os.link(tree / "sparse", tmp_path / "kept")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "s"))
        remove_tree(tree)
    assert os.listdir(tmp_path) == ["kept"]


def test_targets_of_links_stay(tmp_path: Path) -> None:
    kept, tree = tmp_path / "kept", tmp_path / "tree"
    kept.mkdir()
    (kept / "file").touch()
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "link").symlink_to(kept)
    (tree / "dangling").symlink_to("/nowhere")
    (tmp_path / "link").symlink_to(kept)
    remove_tree(tree)
    remove_tree(tmp_path / "link")
    assert (os.listdir(tmp_path), os.listdir(kept)) == (["kept"], ["file"])


@pytest.mark.parametrize("path", ["nothing", "nowhere/nothing"])
def test_nothing_is_removed_where_nothing_is(tmp_path: Path, path: str) -> None:
    remove_tree(tmp_path / path)


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o400, 0o300])
def test_own_directory_without_permissions_is_removed(mode: int) -> None:
    with directory_of_nobody() as directory, as_nobody():
        inner = directory / "tree" / "inner"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        for place in (inner, inner.parent):
            place.chmod(mode)
        remove_tree(directory / "tree")
        assert os.listdir(directory) == []


def test_what_cannot_be_removed_is_named_and_keeps_nothing_else() -> None:
    with directory_of_nobody() as directory:
        with as_nobody():
            for name in ("a", "b/c", "d"):
                (directory / "tree" / name).mkdir(parents=True)
                (directory / "tree" / name / "file").touch()
        (directory / "tree" / "b" / "of-root").mkdir(mode=0o755)
        (directory / "tree" / "b" / "of-root" / "file").touch()
        with as_nobody(), pytest.raises(PermissionError) as caught:
            remove_tree(directory / "tree")
        assert caught.value.filename == str(directory / "tree" / "b" / "of-root" / "file")
        left = {path.relative_to(directory).as_posix() for path in (directory / "tree").rglob("*")}
        assert left == {"tree/b", "tree/b/of-root", "tree/b/of-root/file"}


MOUNTED = """
mkdir -p "$1/tree/a/mounted" "$1/kept" "$1/tree/z"; touch "$1/kept/file" "$1/tree/z/file"
mount --bind "$1/kept" "$1/tree/a/mounted"
remove="import sys, pathlib, broker.system.trees as trees; trees.remove_tree(pathlib.Path(sys.argv[1]))"
"$2" -c "$remove" "$1/tree" 2>"$1/said" || true
ls "$1/tree" >"$1/left"
"""


def test_mounted_file_system_stays_as_it_is(tmp_path: Path) -> None:
    in_a_namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", MOUNTED)
    subprocess.run([*in_a_namespace, "sh", tmp_path, sys.executable], cwd=ROOT, timeout=60, check=True)
    assert (tmp_path / "kept" / "file").exists()
    assert (tmp_path / "left").read_text() == "a\n"
    assert f"another file system is mounted there: '{tmp_path}/tree/a/mounted'" in (tmp_path / "said").read_text()


def test_regular_files_are_found_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("a", "b/c/d"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "fifo")
    assert files_below(tmp_path) == [tmp_path / "a", tmp_path / "b" / "c" / "d"]


def test_tree_with_links_and_a_fifo_is_synced(tmp_path: Path) -> None:
    (tmp_path / "below" / "deep").mkdir(parents=True)
    (tmp_path / "below" / "deep" / "file").write_bytes(b"x")
    (tmp_path / "below" / "dangling").symlink_to("/nowhere")
    (tmp_path / "below" / "loop").symlink_to("..")
    os.mkfifo(tmp_path / "below" / "fifo")
    sync_tree(tmp_path)
    assert (tmp_path / "below" / "deep" / "file").read_bytes() == b"x"


def test_private_directories_are_skipped_on_request() -> None:
    with directory_of_nobody() as directory:
        for name in ("private", "public"):
            (directory / name / "inner").mkdir(parents=True)
        (directory / "private").chmod(0o700)
        with as_nobody(), pytest.raises(PermissionError):
            paths_below(directory)
        with as_nobody():
            found = paths_below(directory, skip_private=True)
        assert [path.relative_to(directory).as_posix() for path in found] == ["private", "public", "public/inner"]


def test_deep_tree_is_read_without_recursion(tmp_path: Path) -> None:
    make_deep(tmp_path, "d")
    assert files_below(tmp_path) == []
    remove_tree(tmp_path / "d")  # pytest could not


@pytest.mark.parametrize("read", [files_below, sync_tree])
def test_missing_tree_is_an_error(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nowhere")
