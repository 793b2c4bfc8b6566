"""The settings of an issuer."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from broker.access.oidc.settings import OidcSettings, is_safe_url
from broker.app.config import ServerConfigurationError, load_config
from broker.app.factories import utc_now
from broker.app.issuer import configured_issuer
from broker.errors import ExposedFileError
from broker.fleet.models import Role
from tests.support.errors import raises_code

SECTION = """
[api_oidc]
issuer = "https://id.example.org/realms/acm"
audience = "acm"
role_claim = ["realm_access", "roles"]
[api_oidc.roles]
"fleet operators" = "operator"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return path


def test_section_of_a_file_is_read_and_written(tmp_path: Path) -> None:
    settings = load_config(written(tmp_path, SECTION), {}, {}).api_oidc
    assert settings == OidcSettings(
        issuer="https://id.example.org/realms/acm",
        audience="acm",
        role_claim=("realm_access", "roles"),
        roles={"fleet operators": Role.OPERATOR},
    )
    assert tomllib.loads(settings.toml()) == tomllib.loads(SECTION)
    assert load_config(written(tmp_path, settings.toml()), {}, {}).api_oidc == settings


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("https://id.example.org", "http://id.example.org", "bad_issuer"),
        ("realms/acm", "realms?acm", "bad_issuer"),
        ('audience = "acm"', 'audience = ""', "incomplete_issuer"),
        ('"fleet operators" = "operator"', "", "incomplete_issuer"),
        ('= "operator"', '= "root"', "settings_invalid"),
        ("audience", "audiance", "settings_invalid"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path: Path, old: str, new: str, code: str) -> None:
    assert old in SECTION
    with raises_code(ServerConfigurationError, code):
        load_config(written(tmp_path, SECTION.replace(old, new)), {}, {})


LOG_IN = """[api_oidc.log_in]
client_id = "acm-page"
page_url = "https://acm.example.org:8444"
client_secret_file = "{secret}"
scopes = ["openid", "groups"]
"""


def test_log_in_is_read_and_written(tmp_path: Path) -> None:
    settings = load_config(written(tmp_path, SECTION + LOG_IN), {}, {}).api_oidc
    assert settings is not None
    assert settings.log_in is not None
    assert settings.log_in.scopes == ("openid", "groups")
    assert tomllib.loads(settings.toml()) == tomllib.loads(SECTION + LOG_IN)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("https://acm", "http://acm", "bad_page_url"),
        (":8444", ":8444/page", "bad_page_url"),
        ('"acm-page"', '""', "incomplete_log_in"),
        ('"openid", ', "", "incomplete_log_in"),
        ("client_id", "client", "settings_invalid"),
    ],
)
def test_log_in_that_cannot_be_used_is_refused(tmp_path: Path, old: str, new: str, code: str) -> None:
    with raises_code(ServerConfigurationError, code):
        load_config(written(tmp_path, SECTION + LOG_IN.replace(old, new)), {}, {})


def test_secret_of_the_client_is_read_from_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    config = load_config(written(tmp_path, SECTION + LOG_IN.format(secret=secret)), {}, {})
    with raises_code(ServerConfigurationError, "unreadable_client_secret"):
        configured_issuer(config, utc_now)
    for text, mode, error, code in (
        (" \n", 0o600, ServerConfigurationError, "empty_client_secret"),
        ("secret", 0o644, ExposedFileError, "readable_by_others"),
    ):
        secret.write_text(text)
        secret.chmod(mode)
        with raises_code(error, code):
            configured_issuer(config, utc_now)
    secret.chmod(0o600)
    assert configured_issuer(config, utc_now).log_in is not None


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://id.example.org", True),
        ("http://127.0.0.1:8080", True),
        ("http://localhost/x", True),
        ("http://id.example.org", False),
        ("https://", False),
        ("https://a/?b", False),
        ("https://[::1", False),
        ("file:///etc/passwd", False),
    ],
)
def test_only_protected_urls_are_safe(url: str, is_safe: Any) -> None:
    assert is_safe_url(url) is is_safe
