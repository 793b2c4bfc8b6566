"""Seals answers with the Idempotency-Keys of their requests: an answer may have a token, and the ledger no secrets."""

import base64
import binascii
import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.errors import LedgerError

__all__ = [
    "hash_of_key",
    "opened_answer",
    "sealed_answer",
]


_NONCE_BYTES, _KEY_BYTES = 12, 32


def hash_of_key(key: str) -> str:
    """Return what the ledger has of an Idempotency-Key, in place of the key."""
    return hashlib.sha256(key.encode()).hexdigest()


def sealed_answer(key: str, answer: bytes) -> str:
    """Return an answer as text that only who has the Idempotency-Key can read."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return base64.b64encode(nonce + _cipher(key).encrypt(nonce, answer, None)).decode()


def opened_answer(key: str, sealed: str) -> bytes:
    """Return what `sealed_answer` has sealed with this key; raises LedgerError for anything else."""
    try:
        whole = base64.b64decode(sealed, validate=True)
        return _cipher(key).decrypt(whole[:_NONCE_BYTES], whole[_NONCE_BYTES:], None)
    except (binascii.Error, ValueError, InvalidTag) as error:
        raise LedgerError("The remembered answer to this request is damaged.", code="answer_damaged") from error


def _cipher(key: str) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"acm answer").derive(key.encode()))
