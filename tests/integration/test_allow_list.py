"""Which scripts may be run, and every way in which one may not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import consumer.active_response
from broker.errors import ExposedFileError
from consumer.active_response.allow_list import Allowed, AllowList, AllowListCheck
from consumer.errors import ActiveResponseError
from consumer.settings import ActiveResponseConfig
from tests.support.active_response_scripts import STATELESS, install
from tests.support.errors import raises_code

Load = Callable[[str], AllowList]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    install(tmp_path / "bin", "block", STATELESS)

    def write_and_load(text: str) -> AllowList:
        path = tmp_path / "allow-list"
        path.write_text(text)
        path.chmod(0o644)
        return AllowList.load(ActiveResponseConfig(str(tmp_path / "bin"), str(path)))

    return write_and_load


def test_lines_as_wazuh_writes_them(load: Load) -> None:
    allowed = load("# what may run\n\nblock600 - block - 600\nblock0 - block - 0\n")
    assert allowed.find("block600") == Allowed("block", 600)
    assert allowed.find("block0") == Allowed("block", 0)


def test_list_as_the_manager_of_wazuh_writes_it_is_read(load: Load) -> None:
    allowed = load(
        "\ufeffrestart0 - restart.cmd - 0\r\nrestart0 - block - 0\r\n"
        "block0\t-\tblock - 5\r\nblock0 - restart.cmd - 6\r\nblock0 - block - 7\r\n"
    )
    assert allowed.find("restart0") == Allowed("block", 0)
    assert allowed.find("block0") == Allowed("block", 5)
    with raises_code(ActiveResponseError, "script_unusable"):
        load("gone - restart.cmd - 0\ngone - restart.sh - 0\nblock - block - 0\n").find("gone")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("block", ""),
        ("block - block", ""),
        ("block - block - 1 - 2", ""),
        ("block - /bin/sh - 0", "'/bin/sh'"),
        ("block - ../sh - 0", "'../sh'"),
        ("block - a..b - 0", "'a..b'"),
        ("block - .. - 0", "'..'"),
        ("block - sub/block - 0", "'sub/block'"),
        ("block - - - 0", "'-'"),
        ("!block - block - 0", "'!block'"),
        ("block - block - soon", "'soon'"),
        ("block - block - -1", "'-1'"),
        ("block - block - 1.5", "'1.5'"),
        ("block - block - 99999999999999", "'99999999999999'"),
    ],
)
def test_invalid_line_alone_is_refused_and_named(load: Load, line: str, named: str) -> None:
    allowed = load(f"other - block - 5\n{line}\nthird - block - 6\n")
    assert (allowed.find("other"), allowed.find("third")) == (Allowed("block", 5), Allowed("block", 6))
    (refused,) = allowed.refused
    assert f"allow-list:2: {named}" in refused
    assert "\n" not in refused
    with raises_code(ActiveResponseError, "script_not_allowed") as caught:
        allowed.find("block")
    assert refused in str(caught.value)


def test_comments_and_blanks_around_lines_are_ignored(load: Load) -> None:
    allowed = load("  # no - block - 0\n \t \n\tblock0 - block - 600 # why - not - 5\r\n\nblock1 - block - 7\t#x\n")
    assert (allowed.scripts, allowed.refused) == ({"block0": Allowed("block", 600), "block1": Allowed("block", 7)}, ())


def test_line_that_is_not_utf_8_alone_is_refused(load: Load, tmp_path: Path) -> None:
    load("")
    (tmp_path / "allow-list").write_bytes(b"# gesperrt f\xfcr immer\nbl\xf6ck - block - 5\nblock0 - block - 5\n")
    allowed = AllowList.load(ActiveResponseConfig(str(tmp_path / "bin"), str(tmp_path / "allow-list")))
    assert (allowed.find("block0"), len(allowed.refused)) == (Allowed("block", 5), 1)
    assert "allow-list:2: " in allowed.refused[0]
    assert allowed.refused[0].isprintable()
    (tmp_path / "allow-list").write_text("block0 - block - 5\n", encoding="utf-16")
    with raises_code(ActiveResponseError, "allow_list_unreadable"):
        AllowList.load(ActiveResponseConfig(str(tmp_path / "bin"), str(tmp_path / "allow-list")))


@pytest.mark.parametrize(("kind", "named"), [("pipe", "not a regular file"), ("sparse", "more than 1048576 bytes")])
def test_list_that_is_no_small_file_is_refused_without_reading_on(tmp_path: Path, kind: str, named: str) -> None:
    path = tmp_path / "allow-list"
    if kind == "pipe":
        os.mkfifo(path, 0o644)  # nothing writes to it, so reading it would never end
    else:
        path.touch(0o644)
        os.truncate(path, 1 << 42)
    with raises_code(ActiveResponseError, "allow_list_unreadable") as caught:
        AllowList.load(ActiveResponseConfig(str(tmp_path), str(path)))
    assert named in str(caught.value)


def test_problem_of_the_list_is_known_until_the_file_is_repaired(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "allow-list"
    check = AllowListCheck(ActiveResponseConfig(str(tmp_path / "bin"), str(path)))
    assert "No such file" in str(check.problem)
    load("a - b\n" * 5)
    assert f"{path}:3: write" in str(check.problem)
    assert str(check.problem).endswith(" 2 more lines are refused.")
    load("block - block - 0\n")
    assert check.problem is None
    assert AllowListCheck(ActiveResponseConfig()).problem is None


@pytest.mark.parametrize("name", ["block", "../bin/block", "/bin/sh", "!block", "", "BLOCK600"])
def test_only_names_of_the_list_are_found(load: Load, name: str) -> None:
    with raises_code(ActiveResponseError, "script_not_allowed") as caught:
        load("block600 - block - 600").find(name)
    assert str(caught.value).endswith(" block600.")


def _outside(tmp_path: Path) -> None:
    install(tmp_path / "elsewhere", "block", STATELESS)
    (tmp_path / "bin" / "block").unlink()
    (tmp_path / "bin" / "block").symlink_to("../elsewhere/block")


def _directory(tmp_path: Path) -> None:
    (tmp_path / "bin" / "block").unlink()
    (tmp_path / "bin" / "block").mkdir(mode=0o755)


def _in_open_subdirectory(tmp_path: Path) -> None:
    (tmp_path / "bin" / "block").unlink()
    install(tmp_path / "bin" / "sub", "block", STATELESS)
    os.chmod(tmp_path / "bin" / "sub", 0o777)
    (tmp_path / "bin" / "block").symlink_to("sub/block")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda at: (at / "bin" / "block").unlink(), "script_unusable"),
    "link that leaves": (_outside, "script_outside"),
    "a directory": (_directory, "script_not_executable"),
    "not executable": (lambda at: os.chmod(at / "bin" / "block", 0o644), "script_not_executable"),
}
EXPOSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "group may write": (lambda at: os.chmod(at / "bin" / "block", 0o775), "bin/block"),
    "others may write": (lambda at: os.chmod(at / "bin" / "block", 0o757), "bin/block"),
    "open directory": (lambda at: os.chmod(at / "bin", 0o777), "bin"),
    "open subdirectory": (_in_open_subdirectory, "bin/sub"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_executable_is_refused(load: Load, tmp_path: Path, fault: str) -> None:
    allowed = load("block - block - 0")
    break_it, code = FAULTS[fault]
    break_it(tmp_path)
    with raises_code(ActiveResponseError, code) as caught:
        allowed.find("block")
    assert "block" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", EXPOSED)
def test_script_writable_by_others_is_refused(load: Load, tmp_path: Path, fault: str) -> None:
    allowed = load("block - block - 0")
    expose, place = EXPOSED[fault]
    expose(tmp_path)
    with raises_code(ExposedFileError, "writable_by_others") as caught:
        allowed.find("block")
    assert str(caught.value).startswith(f"{tmp_path / place} ")


def test_a_link_inside_the_directory_is_followed(load: Load, tmp_path: Path) -> None:
    (tmp_path / "bin" / "alias").symlink_to("block")
    assert load("alias - alias - 0").find("alias") == Allowed("alias", 0)


def test_exposed_or_missing_allow_list_is_refused(load: Load, tmp_path: Path) -> None:
    load("block - block - 0")
    config = ActiveResponseConfig(str(tmp_path / "bin"), str(tmp_path / "allow-list"))
    os.chmod(tmp_path / "allow-list", 0o666)
    with raises_code(ExposedFileError, "writable_by_others"):
        AllowList.load(config)
    (tmp_path / "allow-list").unlink()
    with raises_code(ActiveResponseError, "allow_list_unreadable") as caught:
        AllowList.load(config)
    assert str(tmp_path / "allow-list") in str(caught.value)


def test_the_shipped_scripts_are_all_in_the_shipped_list(load: Load) -> None:
    package = Path(consumer.active_response.__file__).parent
    shipped = load((package / "allow-list").read_text())
    assert {name: allowed.timeout_s for name, allowed in shipped.scripts.items()} == {
        "disable-account": 600,
        "firewall-drop": 600,
        "host-deny": 600,
        "restart": 0,
    }
    scripts = list((package / "scripts").iterdir())
    assert {path.name for path in scripts} == shipped.scripts.keys()
    assert all(os.access(path, os.X_OK) for path in scripts)
