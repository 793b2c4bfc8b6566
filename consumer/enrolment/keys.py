"""The agent's keys: Ed25519 (RFC 8410), generated here, stored with mode 0600, and never sent."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from broker.contract.private_keys import PrivateKeyError, private_key_from_pem
from broker.system.permissions import refuse_readable
from consumer.errors import EnrolmentError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "new_key",
    "read_key",
    "sign_text",
    "signing_request",
]


# design.md: "One kind of key"
def new_key() -> "Ed25519PrivateKey":
    """Return a new private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def read_key(path: Path) -> "Ed25519PrivateKey":
    """Read a private key in PEM.

    Raises EnrolmentError if the file is not a private key, ExposedFileError if others could read it, and OSError.
    """
    refuse_readable(path)
    try:
        return private_key_from_pem(path.read_bytes())
    except PrivateKeyError as error:
        raise EnrolmentError(
            f"{path} is {error}: remove it and enroll with a new token.", code="invalid_key"
        ) from error


def signing_request(agent: str, key: "Ed25519PrivateKey") -> str:
    """Return a certificate signing request (PKCS#10, RFC 2986) in PEM, for the agent's name."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
    return request.public_bytes(Encoding.PEM).decode()


def sign_text(key: "Ed25519PrivateKey", text: str) -> str:
    """Return the signature of the text's bytes in base64."""
    return base64.b64encode(key.sign(text.encode())).decode()
