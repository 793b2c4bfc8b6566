"""Ed25519 private keys as PEM text: PKCS#8 (RFC 5958, RFC 8410), not encrypted. Both packages use this form.

cryptography is imported when there is a key: 9 MB of an agent that is not enrolled.
"""

from typing import TYPE_CHECKING

from broker.errors import BrokerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "PrivateKeyError",
    "private_key_from_pem",
    "private_key_to_pem",
]


class PrivateKeyError(BrokerError):
    """The text is not an Ed25519 private key in PEM. The error's text is only the reason, and quotes nothing."""

    code = "malformed_private_key"


def private_key_to_pem(key: "Ed25519PrivateKey") -> bytes:
    """Return the key as PKCS#8 in PEM, not encrypted."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def private_key_from_pem(pem: bytes) -> "Ed25519PrivateKey":
    """Read what `private_key_to_pem` wrote.

    Raises PrivateKeyError, with code `not_an_ed25519_key` for a private key of another algorithm.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: encrypted
        raise PrivateKeyError("not an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise PrivateKeyError("not an Ed25519 key", code="not_an_ed25519_key")
    return key
