"""A certificate and its key in two files, which change together.

The new key is written beside the old one first. The rename of the certificate is the change, and then the new key gets
its name. A crash in between leaves a key that is found by its certificate.
"""

import contextlib
import ssl
from pathlib import Path

from broker.system.files import sync_directory, write_durably
from broker.system.lock import locked_directory

__all__ = [
    "key_of",
    "load_pair",
    "write_pair",
]


_SECRET, _PUBLIC = 0o600, 0o644
_ATTEMPTS = 20  # each within a millisecond; a replacement takes a few


def key_of(certificate: Path, key: Path) -> Path:
    """Return the file that has the certificate's key: `key`, or the one beside it after a crash."""
    new = _beside(key)
    return new if new.exists() and not _fits(certificate, key) and _fits(certificate, new) else key


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load a pair that another process may be replacing; raises OSError, also for a key with a password."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(OSError):
            return _load(context, certificate, key_of(certificate, key))
    return _load(context, certificate, key_of(certificate, key))


def write_pair(certificate: Path, certificate_pem: bytes, key: Path, key_pem: bytes) -> None:
    """Replace a certificate and its key, durably; several processes may do so at once. Raises OSError."""
    new = _beside(key)
    with locked_directory(certificate.parent):
        if key_of(certificate, key) == new:
            _give_name(new, key)
        write_durably(new, key_pem, _SECRET, owned_like=key)
        write_durably(certificate, certificate_pem, _PUBLIC)
        _give_name(new, key)


def _beside(key: Path) -> Path:
    return key.with_name(f"{key.stem}.next{key.suffix}")


def _give_name(new: Path, key: Path) -> None:
    new.replace(key)
    sync_directory(key.parent)


def _fits(certificate: Path, key: Path) -> bool:
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate, key)
    except OSError:
        return False
    return True


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    context.load_cert_chain(certificate, key, password="")  # without one, OpenSSL asks the terminal
