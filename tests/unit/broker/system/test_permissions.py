"""Files that other users could change or read are refused, on real files."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.errors import ExposedFileError
from broker.system.permissions import refuse_changeable, refuse_readable
from broker.system.posix_acl import parse_acl, read_acl
from tests.support.acl import NAMED_GROUP, NAMED_USER, set_acl
from tests.support.errors import raises_code

NOBODY = 65534
NO_ACCOUNT = 3_999_999_999


def refused(refuse: Callable[[Path], None], path: Path, code: str, place: Path | None = None) -> str:
    """Return the sentence of the error, which must have this code and begin with the place at fault."""
    with raises_code(ExposedFileError, code) as caught:
        refuse(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{place or path} ")
    assert "\n" not in sentence
    return sentence


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


def test_file_of_ours_alone_is_accepted(key: Path) -> None:
    refuse_changeable(key)
    refuse_readable(key)
    refuse_changeable(key.parent)


def _write(mode: int, *up: str) -> Callable[[Path], Path]:
    def change(key: Path) -> Path:
        place = key.joinpath(*up).resolve()
        place.chmod(mode)
        return place

    return change


def _give_away(*up: str) -> Callable[[Path], Path]:
    def change(key: Path) -> Path:
        place = key.joinpath(*up).resolve()
        os.chown(place, NOBODY, -1)
        return place

    return change


def _link_in_open_directory(key: Path) -> Path:
    """Make the path a link that any user could replace, to a file that only we could."""
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
def test_file_writable_by_others_is_refused_with_path_mode_and_command(key: Path, fault: str) -> None:
    place = FAULTS[fault](key)
    sentence = refused(refuse_changeable, key, "writable_by_others", place)
    assert f"(mode {place.stat().st_mode & 0o7777:04o})" in sentence
    assert sentence.endswith(f"run `chmod go-w {place}`.")
    assert refused(refuse_readable, key, "writable_by_others", place) == sentence


@pytest.mark.parametrize("up", [(), ("..",), ("..", "..")])
def test_file_of_another_user_is_refused_unless_the_user_is_allowed(key: Path, up: tuple[str, ...]) -> None:
    place = _give_away(*up)(key)
    sentence = refused(refuse_changeable, key, "owned_by_another_user", place)
    assert "belongs to user nobody, who could change it; it must belong to root: run `chown`" in sentence
    refuse_changeable(key, owners=[NOBODY])


def test_replaceable_link_on_the_way_is_refused(key: Path) -> None:
    place = _link_in_open_directory(key)
    refused(refuse_changeable, key.parents[1] / "way" / "real", "writable_by_others", place)


def test_sticky_directory_is_accepted_above_a_file_and_refused_itself(key: Path) -> None:
    key.parent.chmod(0o1777)
    refuse_changeable(key)
    with raises_code(ExposedFileError, "shared_directory") as caught:
        refuse_changeable(key.parent)
    assert "chmod" not in str(caught.value)


def test_directory_writable_by_a_group_with_other_members_is_refused(key: Path) -> None:
    key.parent.chmod(0o775)
    os.chown(key.parent, -1, NOBODY)
    refused(refuse_changeable, key, "writable_by_others", key.parent)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o601])
def test_secret_readable_by_others_is_refused_with_mode_and_command(key: Path, mode: int) -> None:
    key.chmod(mode)
    refuse_changeable(key)
    assert f"(mode {mode:04o}): run `chmod 0600 {key}`" in refused(refuse_readable, key, "readable_by_others")


def test_group_may_read_a_secret_that_root_owns_and_no_other(key: Path) -> None:
    key.chmod(0o640)
    refuse_readable(key)
    os.chown(key, NOBODY, -1)
    refused(lambda path: refuse_readable(path, owners=[NOBODY]), key, "readable_by_others")


def test_missing_file_raises_file_not_found(key: Path) -> None:
    for refuse in (refuse_changeable, refuse_readable):
        with pytest.raises(FileNotFoundError):
            refuse(key.with_name("gone"))


def test_user_without_an_account_is_named_by_its_number(key: Path) -> None:
    os.chown(key, NO_ACCOUNT, -1)
    sentence = refused(refuse_changeable, key, "owned_by_another_user")
    assert f"belongs to user {NO_ACCOUNT}, who" in sentence


def test_directory_writable_by_a_group_that_has_no_entry_is_refused(key: Path) -> None:
    key.parent.chmod(0o775)
    os.chown(key.parent, -1, NO_ACCOUNT)
    refused(refuse_changeable, key, "writable_by_others", key.parent)


@pytest.mark.parametrize("kind", [NAMED_USER, NAMED_GROUP])
@pytest.mark.parametrize("up", [(), ("..",), ("..", "..")])
def test_file_that_an_access_control_list_lets_others_write_is_refused(
    key: Path, kind: int, up: tuple[str, ...]
) -> None:
    place = key.joinpath(*up).resolve()
    set_acl(place, kind, NOBODY, 7, group=4)
    sentence = refused(refuse_changeable, key, "writable_by_acl", place)
    entry = "user:nobody" if kind == NAMED_USER else "group:nogroup"
    assert f"({entry}:rwx)" in sentence
    assert sentence.endswith(f"run `setfacl -x {entry} {place}`.")
    assert refused(refuse_readable, key, "writable_by_acl", place) == sentence


@pytest.mark.parametrize("kind", [NAMED_USER, NAMED_GROUP])
def test_secret_that_an_access_control_list_lets_others_read_is_refused(key: Path, kind: int) -> None:
    set_acl(key, kind, NOBODY, 4)
    sentence = refused(refuse_readable, key, "readable_by_acl")
    assert "nobody:r--)" in sentence or "nogroup:r--)" in sentence
    refuse_changeable(key)


def test_access_control_list_without_effect_is_accepted(key: Path) -> None:
    """chmod sets the mask, which bounds all entries; and what the mode shows as the group's is the mask."""
    set_acl(key, NAMED_USER, NOBODY, 7)
    key.chmod(0o600)
    refuse_readable(key)
    set_acl(key.parent, NAMED_USER, os.geteuid(), 7)
    set_acl(key, NAMED_USER, os.geteuid(), 6)
    refuse_readable(key)
    refuse_changeable(key.parent)


def test_owning_group_is_judged_by_its_own_entry(key: Path) -> None:
    set_acl(key.parent, NAMED_USER, os.geteuid(), 7, group=7)
    os.chown(key.parent, -1, 4)
    refused(refuse_changeable, key, "writable_by_others", key.parent)


def test_other_owner_may_be_in_the_access_control_list(key: Path) -> None:
    set_acl(key, NAMED_USER, NOBODY, 6)
    refuse_readable(key, owners=[NOBODY])


def test_file_system_without_access_control_lists_is_accepted() -> None:
    assert read_acl(Path("/proc/self/stat")) is None


@pytest.mark.parametrize("damage", [b"", b"\x02", struct.pack("<I", 3), struct.pack("<IHH", 2, 1, 7)])
def test_list_in_an_unknown_format_is_an_error(damage: bytes) -> None:
    with pytest.raises(OSError, match="unknown format"):
        parse_acl(damage)
