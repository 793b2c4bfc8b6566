"""The doctor's findings on certificates and revocation lists, in the files of `acm broker config`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.app.config import ServerConfig, load_config
from broker.doctor import certificates
from broker.doctor.certificates import check_certificates, check_revocation_list
from broker.system.findings import NOT_CHECKED
from tests.support.findings import codes, only
from tests.support.secured import SecuredSite
from tests.support.unprivileged import as_nobody, let_others_pass


def after(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@pytest.fixture
def site(tmp_path: Path) -> SecuredSite:
    return SecuredSite(tmp_path)


@pytest.fixture
def config(site: SecuredSite) -> ServerConfig:
    """The configuration that was written beside the files."""
    return load_config(site.files.settings, {}, {})


def test_new_certificates_are_shown_with_their_days(config: ServerConfig) -> None:
    findings = list(check_certificates(config, after(0)))
    assert codes(findings) == []
    shown = [it.found for it in findings]
    assert ["for 364 days" in it for it in shown[:4]] == [True] * 4
    assert "ca.crt is valid for 3649 days" in shown[4]


def test_certificates_that_end_soon(site: SecuredSite, config: ServerConfig) -> None:
    findings = list(check_certificates(config, after(345)))
    assert codes(findings) == ["certificate_ends_soon"]
    assert ["for 19 days" in it.found for it in findings] == [True] * 4 + [False]
    assert f"acm broker config --out {site.directory}" in str(findings[0].fix)


def test_certificates_that_have_expired(config: ServerConfig) -> None:
    findings = list(check_certificates(config, after(400)))
    assert codes(findings) == ["certificate_expired"]
    assert ["has expired, since 35 days" in it.found for it in findings] == [True] * 4 + [False]
    assert "reload the broker" in str(findings[0].fix)


def test_authority_that_ends_within_a_year(config: ServerConfig) -> None:
    found = list(check_certificates(config, after(3400)))[-1]
    only([found], certificates.AUTHORITY_ENDS_SOON, "ca.crt", "acm ca rollover begin")


def test_authority_that_has_expired(config: ServerConfig) -> None:
    found = list(check_certificates(config, after(3700)))[-1]
    only([found], certificates.EXPIRED, "ca.crt", "new authority")


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_certificate_that_cannot_be_read(site: SecuredSite, config: ServerConfig, content: bytes | None) -> None:
    if content is None:
        site.server.certificate.unlink()
    else:
        site.server.certificate.write_bytes(content)
    only(check_certificates(config, after(0)), certificates.UNREADABLE, "server.crt")


def test_authority_that_cannot_be_read(config: ServerConfig) -> None:
    (Path(config.ca) / "ca.crt").write_text("no certificate")
    only(check_certificates(config, after(0)), certificates.UNREADABLE, "ca.crt has no certificate")


def test_installation_without_certificates(tmp_path: Path) -> None:
    config = ServerConfig(ca=str(tmp_path / "none"))
    (found,) = [*check_certificates(config, after(0))]
    assert (found.code, "No certificates" in found.found) == ("ok", True)
    assert codes(check_revocation_list(config, after(0))) == []


def test_list_that_is_written_every_day(config: ServerConfig) -> None:
    (found,) = check_revocation_list(config, after(0))
    assert (found.code, "for 6 days" in found.found) == ("ok", True)


def test_list_that_nothing_writes(config: ServerConfig) -> None:
    only(check_revocation_list(config, after(3.5)), certificates.LIST_STALE, "for 3 days", "acm-enroll-server")


def test_list_that_has_expired(config: ServerConfig) -> None:
    only(check_revocation_list(config, after(8.5)), certificates.LIST_EXPIRED, "since 1 day", "acm ca crl")


@pytest.mark.parametrize("content", [None, b"no list", b"-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"])
def test_list_that_cannot_be_read(site: SecuredSite, config: ServerConfig, content: bytes | None) -> None:
    if content is None:
        site.files.revocation_list.unlink()
    else:
        site.files.revocation_list.write_bytes(content)
    only(check_revocation_list(config, after(0)), certificates.LIST_MISSING, "crl.pem", "acm ca crl")


def test_files_that_this_user_may_not_read(site: SecuredSite, config: ServerConfig) -> None:
    """Needs root, to become another user."""
    for path in (site.server.certificate, site.files.revocation_list):
        path.chmod(0o600)
    let_others_pass(site.directory)
    with as_nobody():
        only(check_revocation_list(config, after(0)), NOT_CHECKED, "may not read", "crl.pem")
        found = [it for it in check_certificates(config, after(0)) if it.code != "ok"]
        assert {it.code for it in found} == {"not_checked"}
        assert "server.crt" in found[0].found
