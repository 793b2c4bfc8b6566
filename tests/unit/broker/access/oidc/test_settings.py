"""The settings of an issuer."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from broker.access.oidc.settings import OidcSettings, is_safe_url
from broker.app.config import ServerConfigurationError, load_config
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
