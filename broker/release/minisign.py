"""Verifies signatures of minisign (https://jedisct1.github.io/minisign/); its own tool makes them.

A public key is the letters `Ed`, a key id of 8 bytes and the Ed25519 key, in base64. A signature file has four lines:
an untrusted comment; the algorithm, the key id and the signature, in base64; a trusted comment; and a second signature,
over the first one and the trusted comment, in base64. The algorithm `ED` signs the BLAKE2b-512 of the message, the
legacy `Ed` the message itself.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from broker.errors import BrokerError

__all__ = [
    "MinisignError",
    "PublicKey",
    "Signature",
    "verify_signature",
]


_LEGACY, _PREHASHED = b"Ed", b"ED"
_KEY_BYTES = 2 + 8 + 32
_SIGNATURE_BYTES = 2 + 8 + 64
_TRUSTED = "trusted comment: "


class MinisignError(BrokerError):
    """A key or a signature is malformed, or the signature is not valid for the message and the keys."""

    code = "minisign_error"


def _key_id(raw: bytes) -> str:
    return f"{int.from_bytes(raw, 'little'):X}"  # as minisign prints it


def _decoded(text: str, length: int, what: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != length:
        raise MinisignError(f"{text[:80]!r} is not {what} of minisign.", code="malformed")
    return raw


@dataclass(frozen=True)
class PublicKey:
    """A public key; `id` is the key's id as minisign prints it."""

    id: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a key, `RW…`, or the text of a .pub file; raises MinisignError."""
        lines = text.strip().splitlines() or [""]
        raw = _decoded(lines[-1], _KEY_BYTES, "a public key")
        if raw[:2] != _LEGACY:
            raise MinisignError(f"{lines[-1][:80]!r} is not a public key of minisign.", code="malformed")
        return cls(_key_id(raw[2:10]), raw[10:])


@dataclass(frozen=True)
class Signature:
    """The content of a .minisig file, not yet verified."""

    key_id: str
    prehashed: bool
    signature: bytes
    trusted_comment: str
    global_signature: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text of a .minisig file; raises MinisignError."""
        lines = text.splitlines()
        if len(lines) != 4 or not lines[2].startswith(_TRUSTED):
            raise MinisignError("This is not a signature file of minisign, which has four lines.", code="malformed")
        raw = _decoded(lines[1], _SIGNATURE_BYTES, "a signature")
        if raw[:2] not in (_LEGACY, _PREHASHED):
            raise MinisignError(f"{lines[1][:80]!r} is not a signature of minisign.", code="malformed")
        comment = lines[2].removeprefix(_TRUSTED)
        return cls(_key_id(raw[2:10]), raw[:2] == _PREHASHED, raw[10:], comment, _decoded(lines[3], 64, "a signature"))


def verify_signature(message: bytes, signature_text: str, keys: Iterable[PublicKey]) -> Signature:
    """Return the signature if one of the keys has signed this message and the trusted comment.

    Raises MinisignError: malformed (`malformed`), by another key (`unknown_key`), or not valid (`bad_signature`).
    """
    signature = Signature.parse(signature_text)
    candidates = [key for key in keys if key.id == signature.key_id]
    if not candidates:
        raise MinisignError(
            f"The signature is by the key {signature.key_id}, which is not one of the trusted keys.", code="unknown_key"
        )
    signed = hashlib.blake2b(message).digest() if signature.prehashed else message
    commented = signature.signature + signature.trusted_comment.encode()
    for key in candidates:
        if _signs(key, signature.signature, signed) and _signs(key, signature.global_signature, commented):
            return signature
    raise MinisignError(
        f"The signature by the key {signature.key_id} is not valid for this file and comment.", code="bad_signature"
    )


def _signs(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(signature, signed)
    except InvalidSignature:
        return False
    return True
