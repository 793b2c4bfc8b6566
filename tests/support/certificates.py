"""An issuer, and readers of the certificates and lists that it signs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

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
