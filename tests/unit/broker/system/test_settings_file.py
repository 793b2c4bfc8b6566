"""The settings that both programs read in the same way."""

from pathlib import Path

import msgspec
import pytest

from broker.errors import BrokerError, ExposedFileError
from broker.system.settings_file import SettingsReader, given_flags
from tests.support.errors import raises_code


class Refused(BrokerError):
    """The error of this test's program."""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    broker: str
    keep: int = 3


READER = SettingsReader(urls=("broker", "ledger"), error=Refused, prefix="TEST_")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text("broker = 'mqtt://host'\nkeep = 4\n")
    path.chmod(0o644)
    return path


def test_values_of_a_file_are_returned(path: Path) -> None:
    assert READER.read_file(path) == {"broker": "mqtt://host", "keep": 4}


def test_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with raises_code(Refused, "settings_unreadable") as caught:
        READER.read_file(tmp_path / "missing.toml")
    assert str(tmp_path / "missing.toml") in str(caught.value)


@pytest.mark.parametrize("content", [b"broker = ", b"\xff"])
def test_file_that_is_not_toml_is_refused_with_its_path(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with raises_code(Refused, "settings_not_toml") as caught:
        READER.read_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["broker", "ledger"])
def test_readable_file_is_refused_only_if_a_url_in_it_has_a_password(path: Path, name: str) -> None:
    path.write_text(f"{name} = 'scheme://me@host'\n")
    READER.read_file(path)
    path.write_text(f"{name} = 'scheme://me:hush@host'\n")
    with raises_code(ExposedFileError, "readable_by_others"):
        READER.read_file(path)
    path.chmod(0o600)
    READER.read_file(path)


def test_file_that_others_can_change_is_refused(path: Path) -> None:
    path.chmod(0o646)
    with raises_code(ExposedFileError, "writable_by_others"):
        READER.read_file(path)


@pytest.mark.parametrize("name", ["broker", "ledger"])
def test_flag_with_a_password_is_refused_and_not_repeated(name: str) -> None:
    READER.refuse_passwords({name: "scheme://me@host", "keep": 1})
    with raises_code(Refused, "password_on_command_line") as caught:
        READER.refuse_passwords({name: "scheme://me:hush@host"})
    assert f"TEST_{name.upper()}" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_environment_variables_have_the_prefix_of_the_program() -> None:
    environment = {"TEST_BROKER": "mqtt://host", "BROKER": "other", "TEST_OTHER": "x"}
    assert READER.from_environment(["broker", "keep"], environment) == {"broker": "mqtt://host"}
    assert READER.secret_variables == ("TEST_BROKER", "TEST_LEDGER")


def test_unknown_setting_is_refused_with_its_source() -> None:
    assert READER.convert({"broker": "x"}, Settings, "flags") == Settings("x")
    assert READER.convert({"broker": "x", "keep": "5"}, Settings, "flags", strict=False) == Settings("x", 5)
    with raises_code(Refused, "settings_invalid") as caught:
        READER.convert({"broker": "x", "kept": 5}, Settings, "flags")
    assert "flags" in str(caught.value)
    assert "kept" in str(caught.value)


def test_flags_of_none_are_left_out() -> None:
    assert given_flags({"broker": None, "keep": 0, "agent": ""}) == {"keep": 0, "agent": ""}
