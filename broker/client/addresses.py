"""Where an API is, and which certificates are trusted there. Imports no HTTP library."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from broker.errors import InvalidArgument
from broker.system.key_pairs import load_pair
from broker.system.permissions import refuse_readable
from broker.web.addresses import is_loopback

__all__ = [
    "checked_url",
    "proof_in_headers",
    "trusting",
]


def checked_url(url: str) -> str:
    """Return the URL of an API; raises InvalidArgument for one on which a token could be read by others."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return url.rstrip("/")
    raise InvalidArgument(
        f"{url[:80]!r} is not the URL of an API: it begins with https://, or with http:// and a loopback address.",
        code="insecure_url",
    )


def proof_in_headers(token: str | None, certificate: Path | None) -> dict[str, str]:
    """Return the headers of every request of a principal; raises InvalidArgument if nothing proves who it is."""
    if token is None and certificate is None:
        raise InvalidArgument("Give an access token, or a certificate with its key.", code="missing_token")
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def trusting(
    url: str, ca: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext | bool:
    """Return what a connection to an API trusts: the authority in a file, or with None those of the system.

    With `certificate` and `key` it shows that certificate. Raises InvalidArgument for files that cannot be used, and
    ExposedFileError for a key that another user may read. Without TLS nothing is loaded.
    """
    if (certificate is None) is not (key is None):
        raise InvalidArgument(
            "A certificate and its key are given together: one of them is missing.", code="certificate_without_key"
        )
    if not url.startswith("https://"):
        if certificate is not None:
            raise InvalidArgument(f"A certificate needs an https URL, not {url[:80]!r}.", code="certificate_needs_tls")
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as in broker.mqtt.tls: strict flags refuse private authorities
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_authorities(context, ca)
    if certificate is not None and key is not None:
        _load_certificate(context, certificate, key)
    return context


def _load_authorities(context: ssl.SSLContext, ca: Path | None) -> None:
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except OSError as error:
        reason = "it has none" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidArgument(
            f"{ca} cannot be read as the certificate of an authority (PEM): {reason}.", code="bad_ca_file"
        ) from error


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        certificate.open("rb").close()
        refuse_readable(key)
        load_pair(context, certificate, key)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        if isinstance(error, ssl.SSLError):
            reason = "the key is of another certificate, has a password, or one of them is not in PEM"
        raise InvalidArgument(
            f"The certificate {certificate} and its key {key} cannot be used: {reason}.", code="bad_certificate_files"
        ) from error
