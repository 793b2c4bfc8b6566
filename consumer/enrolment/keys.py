"""The agent's keys: Ed25519 (RFC 8410), made here, kept with mode 0600, never sent anywhere."""

import base64
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from broker.system.permissions import refuse_readable
from consumer.errors import EnrolmentError

__all__ = [
    "key_to_pem",
    "new_key",
    "read_key",
    "request_for",
    "sign",
]


def new_key() -> Ed25519PrivateKey:
    """Return a new private key."""
    return Ed25519PrivateKey.generate()


def key_to_pem(key: Ed25519PrivateKey) -> bytes:
    """Return the private key as PKCS#8 in PEM, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read what `key_to_pem` wrote; raises EnrolmentError, ExposedFileError, FileNotFoundError when it is not there."""
    refuse_readable(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise EnrolmentError(f"{path} holds no private key: remove it and enroll with a new token.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise EnrolmentError(f"{path} holds another key than one of Ed25519: remove it and enroll with a new token.")
    return key


def request_for(agent: str, key: Ed25519PrivateKey) -> str:
    """Return a certificate signing request (PKCS#10, RFC 2986) in PEM, made out to the agent's name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
    return request.public_bytes(Encoding.PEM).decode()


def sign(key: Ed25519PrivateKey, text: str) -> str:
    """Return the signature of the text's bytes in base64."""
    return base64.b64encode(key.sign(text.encode())).decode()
