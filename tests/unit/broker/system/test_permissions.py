"""Who else could change or read a file, on real files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.system.permissions import changed_by_others, read_by_others

SOMEBODY = 65534


@pytest.fixture
def key(tmp_path: Path) -> Path:
    directory = tmp_path / "above" / "below"
    directory.mkdir(parents=True)
    (tmp_path / "above").chmod(0o755)
    directory.chmod(0o755)
    path = directory / "key"
    path.write_text("secret")
    path.chmod(0o600)
    return path


def test_what_is_ours_alone_is_good(key: Path) -> None:
    assert changed_by_others(key) is None
    assert read_by_others(key) is None
    assert changed_by_others(key.parent) is None


def _write(mode: int, *up: str) -> Callable[[Path], Path]:
    def change(key: Path) -> Path:
        place = key.joinpath(*up).resolve()
        place.chmod(mode)
        return place

    return change


def _give_away(*up: str) -> Callable[[Path], Path]:
    def change(key: Path) -> Path:
        place = key.joinpath(*up).resolve()
        os.chown(place, SOMEBODY, -1)
        return place

    return change


def _link_in_open_directory(key: Path) -> Path:
    """The path is a link, which anybody could replace, to a file that only we can."""
    open_to_all = key.parents[2] / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (open_to_all / "link").symlink_to(key.parent)
    key.with_name("key").rename(key.parent / "real")
    key.parent.parent.joinpath("way").symlink_to(open_to_all / "link")
    return open_to_all


FAULTS: dict[str, Callable[[Path], Path]] = {
    "the file by others": _write(0o602),
    "the file by a group": _write(0o620),
    "its directory by others": _write(0o757, ".."),
    "its directory by a group of many": _write(0o777, "..", ".."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_others_could_write_is_said_with_path_mode_and_command(key: Path, fault: str) -> None:
    place = FAULTS[fault](key)
    said = changed_by_others(key) or ""
    assert f"{place} can be written by others than its owner (mode {place.stat().st_mode & 0o7777:04o})" in said
    assert said.endswith(f"run `chmod go-w {place}`.")
    assert read_by_others(key) == said
    assert "\n" not in said


@pytest.mark.parametrize("up", [(), ("..",), ("..", "..")])
def test_what_another_user_owns_is_said(key: Path, up: tuple[str, ...]) -> None:
    place = _give_away(*up)(key)
    assert f"{place} belongs to user nobody, who could change it; it must belong to root: run" in (
        changed_by_others(key) or ""
    )
    assert changed_by_others(key, owners=[SOMEBODY]) is None


def test_a_link_that_others_could_replace_is_found_on_the_way(key: Path) -> None:
    place = _link_in_open_directory(key)
    said = changed_by_others(key.parents[1] / "way" / "real")
    assert f"{place} can be written by others" in (said or "")


def test_a_sticky_directory_above_is_good_and_as_the_place_itself_is_not(key: Path) -> None:
    key.parent.chmod(0o1777)
    assert changed_by_others(key) is None
    assert "can be written by others" in (changed_by_others(key.parent) or "")


def test_a_group_above_that_has_other_members_could_change_it(key: Path) -> None:
    key.parent.chmod(0o775)
    os.chown(key.parent, -1, SOMEBODY)
    assert "can be written by others" in (changed_by_others(key) or "")


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o601])
def test_a_secret_that_others_could_read_is_said(key: Path, mode: int) -> None:
    key.chmod(mode)
    assert changed_by_others(key) is None
    assert f"(mode {mode:04o}): run `chmod 0600 {key}`" in (read_by_others(key) or "")


def test_a_group_may_read_a_secret_of_root_and_of_nobody_else(key: Path) -> None:
    key.chmod(0o640)
    assert read_by_others(key) is None
    os.chown(key, SOMEBODY, -1)
    assert "can be read by others" in (read_by_others(key, owners=[SOMEBODY]) or "")


def test_what_is_not_there_cannot_be_looked_at(key: Path) -> None:
    with pytest.raises(FileNotFoundError):
        changed_by_others(key.with_name("gone"))
    with pytest.raises(FileNotFoundError):
        read_by_others(key.with_name("gone"))
