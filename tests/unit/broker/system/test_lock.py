"""Locks between processes: one holder, released with the last descriptor."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from broker.system.lock import acquire_lock, is_locked, locked, locked_directory


def test_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        assert is_locked(path)
        with pytest.raises(BlockingIOError):
            acquire_lock(path)
    assert not is_locked(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(acquire_lock(path))


def test_lock_is_released_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    assert not is_locked(tmp_path / "lock")


def test_copy_of_the_descriptor_keeps_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "lock") as handle:
        copy = os.dup(handle)
    assert is_locked(tmp_path / "lock")
    os.close(copy)
    assert not is_locked(tmp_path / "lock")


def test_directory_can_be_locked(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    with locked_directory(tmp_path), pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    assert os.listdir(tmp_path) == []


def test_missing_directory_is_not_locked_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked_directory(tmp_path / "keys"):
        pass
    assert os.listdir(tmp_path) == []


def test_missing_file_is_not_locked_and_not_created(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "lock")
    assert os.listdir(tmp_path) == []


def test_refused_lock_leaves_no_descriptor_open(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(BlockingIOError):
            acquire_lock(tmp_path / "lock")
        assert len(os.listdir("/proc/self/fd")) == before


def test_look_of_another_process_keeps_nobody_from_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(acquire_lock(tmp_path / "lock"))
    looking = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr("broker.system.lock.time.sleep", lambda _: os.close(looking))  # the look ends meanwhile
    os.close(acquire_lock(tmp_path / "lock"))


def test_two_looks_at_once_see_a_free_lock(tmp_path: Path) -> None:
    os.close(acquire_lock(tmp_path / "lock"))
    looking = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not is_locked(tmp_path / "lock")
    os.close(looking)
