"""Where an API is, and which certificates are trusted there. Imports no HTTP library."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from broker.errors import InvalidArgument
from broker.web.addresses import is_loopback

__all__ = [
    "checked_url",
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


def trusting(url: str, ca: Path | None) -> ssl.SSLContext | bool:
    """Return what a connection to an API trusts: the authority in a file, or with None those of the system.

    Raises InvalidArgument for a file without a certificate. Without TLS nothing is loaded.
    """
    if not url.startswith("https://"):
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as in broker.mqtt.tls: strict flags refuse private authorities
    context.minimum_version = ssl.TLSVersion.TLSv1_2
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
    return context
