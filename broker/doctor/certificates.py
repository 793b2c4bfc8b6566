"""Certificates and the revocation list in files: how many days each is still valid."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from broker.app.config import ServerConfig
from broker.app.credentials import server_certificate_files
from broker.doctor.days import shown_days
from broker.doctor.places import is_there
from broker.pki.authority import CRL_LIFETIME, crl_path
from broker.pki.authority_files import CA_CERTIFICATE
from broker.pki.revocation_list import ends_of_lists
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok

__all__ = [
    "check_certificates",
    "check_revocation_list",
]


EXPIRED = Fault(
    "certificate_expired",
    Level.FAIL,
    "A certificate of the broker, a server or the authority has expired.",
    "acm broker config --out DIR (DIR has the file), then reload the broker",
)
ENDS_SOON = Fault(
    "certificate_ends_soon",
    Level.WARN,
    "A certificate of the broker or a server ends within 30 days, and was not renewed.",
    "Start `acm enroll-server`, which renews it, or run: acm broker config --out DIR (DIR has the file)",
)
AUTHORITY_ENDS_SOON = Fault(
    "authority_ends_soon",
    Level.WARN,
    "The authority's certificate ends within a year.",
    "acm ca rollover begin",
)
UNREADABLE = Fault(
    "certificate_unreadable",
    Level.FAIL,
    "A configured certificate is missing, or has no certificate in PEM.",
    "acm broker config --out DIR (DIR has the file), or correct the configuration",
)
LIST_MISSING = Fault(
    "revocation_list_missing",
    Level.FAIL,
    "There is no revocation list, or none that can be read; a broker does not start without it.",
    "acm ca crl",
)
LIST_EXPIRED = Fault(
    "revocation_list_expired",
    Level.FAIL,
    "The revocation list has expired: the broker refuses every client.",
    "acm ca crl, then reload the broker, and start `acm enroll-server`, which writes the list every day",
)
LIST_STALE = Fault(
    "revocation_list_stale",
    Level.WARN,
    "The revocation list is older than two days, so that nothing writes it every day.",
    "systemctl start acm-enroll-server (or start `acm enroll-server` otherwise)",
)
_CERTIFICATES, _LIST = "certificates", "revocation list"
_WARN_BEFORE, _WARN_BEFORE_OF_AUTHORITY = timedelta(days=30), timedelta(days=365)
_STALE_AFTER = timedelta(days=2)


def check_certificates(config: ServerConfig, now: datetime) -> Iterator[Finding]:
    """Read the certificates that are configured, and that of the authority if it is on this machine."""
    found = [*_of_servers(config, now), *_of_authority(Path(config.ca) / CA_CERTIFICATE, now)]
    return iter(found or [ok(_CERTIFICATES, "No certificates are configured.")])


def check_revocation_list(config: ServerConfig, now: datetime) -> Iterator[Finding]:
    """Read the revocation list that is configured, or that of the authority's directory."""
    path = Path(config.crl) if config.crl else crl_path(Path(config.ca))
    if config.crl is None and not is_there(path):
        yield ok(_LIST, "No revocation list is configured.")
        return
    try:
        ends = ends_of_lists(path.read_bytes())
    except PermissionError:
        yield _unreadable(_LIST, path)
    except (OSError, ValueError) as error:
        yield LIST_MISSING.found(_LIST, f"{path} cannot be read: {_reason(error)}.")
    else:
        yield _list_finding(path, ends, now)


def _list_finding(path: Path, ends: list[datetime], now: datetime) -> Finding:
    if not ends:
        return LIST_MISSING.found(_LIST, f"{path} has no revocation list.")
    left = min(ends) - now
    if left <= timedelta():
        return LIST_EXPIRED.found(_LIST, f"{path} has expired, {shown_days(left / timedelta(days=1))}.")
    valid = f"{path} is valid {shown_days(left / timedelta(days=1))}"
    if CRL_LIFETIME - left > _STALE_AFTER:
        return LIST_STALE.found(_LIST, f"{valid}, and was not written for {(CRL_LIFETIME - left).days} days.")
    return ok(_LIST, f"{valid}, and is written every day.")


def _of_servers(config: ServerConfig, now: datetime) -> Iterable[Finding]:
    configured = {config.enroll_certificate, config.broker_certificate, config.api_certificate}
    for file in server_certificate_files(config):
        certificate = file.read()
        if certificate is not None:
            yield _finding(file.path, certificate, now)
        elif str(file.path) in configured or is_there(file.path):
            yield _not_read(file.path)


def _finding(path: Path, certificate: x509.Certificate, now: datetime) -> Finding:
    left = certificate.not_valid_after_utc - now
    fix = f"acm broker config --out {path.parent}"
    sentence = _validity(path, certificate, now)
    if left <= timedelta():
        return EXPIRED.found(_CERTIFICATES, sentence, fix=f"{fix}, then reload the broker")
    if left <= _WARN_BEFORE:
        return ENDS_SOON.found(
            _CERTIFICATES, sentence, fix=f"Start `acm enroll-server`, which renews it, or run: {fix}"
        )
    return ok(_CERTIFICATES, sentence)


def _validity(path: Path, certificate: x509.Certificate, now: datetime) -> str:
    end = certificate.not_valid_after_utc
    days = shown_days((end - now) / timedelta(days=1))
    return f"{path} {'is valid' if end > now else 'has expired,'} {days} ({end:%Y-%m-%d %H:%M} UTC)."


def _of_authority(path: Path, now: datetime) -> Iterable[Finding]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        yield _not_read(path)
        return
    sentence, left = _validity(path, certificate, now), certificate.not_valid_after_utc - now
    if left <= timedelta():
        yield EXPIRED.found(_CERTIFICATES, sentence, fix="Create a new authority, and enroll the agents again.")
    elif left <= _WARN_BEFORE_OF_AUTHORITY:
        yield AUTHORITY_ENDS_SOON.found(_CERTIFICATES, sentence)
    else:
        yield ok(_CERTIFICATES, sentence)


def _not_read(path: Path) -> Finding:
    try:
        path.read_bytes()
    except PermissionError:
        return _unreadable(_CERTIFICATES, path)
    except OSError as error:
        return UNREADABLE.found(_CERTIFICATES, f"{path} cannot be read: {_reason(error)}.")
    return UNREADABLE.found(_CERTIFICATES, f"{path} has no certificate in PEM.")


def _unreadable(check: str, path: Path) -> Finding:
    return NOT_CHECKED.found(check, f"Not checked: this user may not read {path}.")


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not a list in PEM"
