"""Where `acm up` makes an installation, and when other commands use its configuration."""

import os
from pathlib import Path

import pytest

from broker.app.config import is_configured
from broker.app.default_directory import NoHome, default_directory, default_settings, settings_of
from tests.support.errors import raises_code
from tests.support.unprivileged import as_nobody


def test_root_has_the_directory_of_the_system() -> None:
    assert os.geteuid() == 0, "run this test as root"
    assert default_directory({"XDG_STATE_HOME": "/x"}) == Path("/var/lib/acm")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"XDG_STATE_HOME": "/x/state"}, "/x/state/acm"), ({"XDG_STATE_HOME": "state"}, "/h/.local/state/acm")],
)
def test_other_users_have_their_state_directory(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/h")
    with as_nobody():
        assert default_directory(environment) == Path(expected)


def test_user_without_a_home_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", _unknown)
    with as_nobody(), raises_code(NoHome, "no_home"):
        default_directory({})


def _unknown(uid: int) -> None:
    raise KeyError(uid)


def test_configuration_is_found_unless_the_working_directory_has_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    settings = settings_of(tmp_path / "state" / "acm")
    user = 65534
    with monkeypatch.context() as unprivileged:
        unprivileged.setattr(os, "geteuid", lambda: user)
        assert default_settings(here, ["acm-ledger.db"]) is None
        settings.parent.mkdir(parents=True)
        settings.touch()
        assert default_settings(here, ["acm-ledger.db"]) is None  # of another user
        os.chown(settings, user, user)
        assert default_settings(here, ["acm-ledger.db"]) == settings
        (here / "acm-ledger.db").touch()
        assert default_settings(here, ["acm-ledger.db"]) is None


@pytest.mark.parametrize(
    ("flags", "environment", "configured"),
    [
        ({"ledger": None}, {}, False),
        ({"ledger": None}, {"ACM_AGENT": "web-01", "ACM_HEALTH_FILE": "/x"}, False),
        ({"ledger": "sqlite:///x"}, {}, True),
        ({}, {"ACM_LEDGER": "sqlite:///x"}, True),
        ({}, {"ACM_LOG_LEVEL": ""}, True),
    ],
)
def test_any_setting_configures_a_call(flags: dict[str, str], environment: dict[str, str], configured: bool) -> None:
    assert is_configured(flags, environment) is configured
