"""An issuer, and readers of the certificates and lists that it signs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from broker.pki.certificates import Issuer, authority_certificate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def new_issuer() -> Issuer:
    key = Ed25519PrivateKey.generate()
    return Issuer(authority_certificate("the authority", key, NOW), key)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def extension(certificate: Any, kind: type) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


def pair_fits(certificate: Path, key: Path) -> bool:
    """Whether the files have a certificate and its key."""
    read = load_pem_private_key(key.read_bytes(), None)
    return x509.load_pem_x509_certificate(certificate.read_bytes()).public_key() == read.public_key()
