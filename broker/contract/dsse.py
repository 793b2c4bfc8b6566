"""Signed messages: who says what to which agent, in a DSSE envelope with Ed25519 signatures.

The envelope is that of https://github.com/secure-systems-lab/dsse (protocol 1.0.2), signatures are those of RFC 8032.
What is signed is the payload's bytes and type; nothing of a payload is parsed before a signature was found good.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from broker.contract.codec import MAX_FRAME_BYTES
from broker.contract.topics import Channel
from broker.errors import BrokerError

__all__ = [
    "MAX_ENROLMENTS",
    "MAX_SIGNATURES",
    "MAX_SIGNED_FRAME_BYTES",
    "RefusedMessage",
    "Scope",
    "SignatureError",
    "SigningKey",
    "VerifyingKey",
    "is_envelope",
    "open_envelope",
    "payload_type",
    "pre_authentication_encoding",
    "read_body",
    "read_public_key",
    "seal",
    "unverified_payload",
    "verify_envelope",
    "write_body",
]


MAX_SIGNATURES = 8
MAX_ENROLMENTS = 8
# A frame of messages this long still fits, with its scope, in base64 and with its signatures, into a frame.
MAX_SIGNED_FRAME_BYTES = 190_000
_ID_DIGITS = 16
_LAST_YEAR = 9000  # some reckoning is done with it


class SignatureError(BrokerError):
    """An envelope or key is malformed, or no signature of it is good; the text is one sentence."""


class _Signature(msgspec.Struct):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct):
    payload: str
    payloadType: str
    signatures: list[_Signature]


class _Marked(msgspec.Struct):
    payloadType: str | None = None


class _Body(msgspec.Struct):
    issuer: str
    audience: str
    enrolments: tuple[str, ...]
    not_before: datetime
    messages: msgspec.Raw


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_marked = msgspec.json.Decoder(_Marked).decode
_decode_body = msgspec.json.Decoder(_Body).decode


@dataclass(frozen=True)
class SigningKey:
    """A private key of the server."""

    private: Ed25519PrivateKey

    @cached_property
    def public(self) -> "VerifyingKey":
        """Its public half."""
        return VerifyingKey(self.private.public_key())


@dataclass(frozen=True)
class VerifyingKey:
    """A public key that an agent trusts; `id` is a hint in the envelope, no proof."""

    public: Ed25519PublicKey

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the key in DER (SubjectPublicKeyInfo, RFC 8410)."""
        der = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()[:_ID_DIGITS]

    @property
    def pem(self) -> str:
        """The key in PEM."""
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True)
class Scope:
    """Whom a signed frame is from and for.

    `issuer` names the server, `audience` the agent, `enrolments` the ids of those of the agent's enrolments that were
    good. `not_before` is when it was signed, by the server's clock: it is not meant to be read before.
    """

    issuer: str
    audience: str
    enrolments: tuple[str, ...]
    not_before: datetime


@dataclass(frozen=True)
class RefusedMessage:
    """The data of a `rejected` result that is about the message and not the command in it.

    Nothing vouched for the message: it was unsigned, or signed by a key or for an enrolment that is not good any more.
    The same command is taken once it comes well signed, so to a server that signs it this is not the command's result.
    """

    refused: Literal["message"] = "message"


def read_public_key(pem: str) -> VerifyingKey:
    """Return the Ed25519 public key in PEM; raises SignatureError."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError("A signing key is not a public key in PEM.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError("A signing key is not an Ed25519 key.")
    return VerifyingKey(key)


def payload_type(channel: Channel) -> str:
    """Return the payload type of what is signed for this channel, so that an ack is never taken for a command."""
    return f"application/vnd.acm.{channel}+json"


def pre_authentication_encoding(kind: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: PAE(type, body) of DSSE."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def write_body(scope: Scope, frame: bytes) -> bytes:
    """Return the payload that says a frame of messages within a scope."""
    return msgspec.json.encode(
        _Body(scope.issuer, scope.audience, scope.enrolments, scope.not_before, msgspec.Raw(frame))
    )


def read_body(payload: bytes) -> tuple[Scope, bytes]:
    """Return the scope and the frame of messages, not yet decoded, of a payload; raises SignatureError."""
    try:
        body = _decode_body(payload)
        moment = body.not_before.astimezone(UTC) if body.not_before.tzinfo else None
    except (msgspec.DecodeError, OverflowError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureError(f"The signed body cannot be read: {str(error)[:300]}.") from error
    if moment is None or moment.year > _LAST_YEAR:
        raise SignatureError("The signed body's `not_before` has no time zone, or is no time of ours.")
    return Scope(body.issuer, body.audience, body.enrolments, moment), bytes(body.messages)


def seal(kind: str, payload: bytes, keys: Iterable[SigningKey]) -> bytes:
    """Return the envelope of a payload with a signature by each key."""
    signed = pre_authentication_encoding(kind, payload)
    signatures = [_Signature(_base64(key.private.sign(signed)), key.public.id) for key in keys]
    return msgspec.json.encode(_Envelope(_base64(payload), kind, signatures))


def is_envelope(frame: bytes) -> bool:
    """Say whether a frame is meant to be an envelope: a JSON object with a `payloadType`."""
    try:
        return _decode_marked(frame).payloadType is not None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def open_envelope(frame: bytes, kind: str, keys: Sequence[VerifyingKey]) -> bytes:
    """Return the payload of an envelope when one of the keys has signed it as this type; else raise SignatureError."""
    payload, _ = verify_envelope(frame, kind, keys)
    return payload


def verify_envelope(frame: bytes, kind: str, keys: Sequence[VerifyingKey]) -> tuple[bytes, tuple[str, ...]]:
    """Return the payload of an envelope, and the ids of all of the keys that have signed it as this type.

    Raises SignatureError when there is none. What is claimed of other keys proves nothing and is left out.
    """
    envelope = _read(frame)
    if envelope.payloadType != kind:
        raise SignatureError(f"What is signed is of the type {envelope.payloadType[:80]!r}, not {kind!r}.")
    payload = _bytes(envelope.payload, "payload")
    signed = pre_authentication_encoding(kind, payload)
    by = {key.id: [one.sig for one in envelope.signatures if one.keyid in ("", key.id)] for key in keys}
    signers = tuple(key.id for key in keys if any(_is_by(key, signature, signed) for signature in by[key.id]))
    if signers:
        return payload, signers
    names = ", ".join(signature.keyid[:_ID_DIGITS] or "a key without an id" for signature in envelope.signatures)
    raise SignatureError(
        f"No signature of it is good by a key that is trusted here; it has some by: {names or 'nobody'}."
    )


def unverified_payload(frame: bytes) -> bytes:
    """Return the payload of an envelope that nobody vouches for, to say what was refused; raises SignatureError."""
    return _bytes(_read(frame).payload, "payload")


def _read(frame: bytes) -> _Envelope:
    if len(frame) > MAX_FRAME_BYTES:
        raise SignatureError(f"The envelope has {len(frame)} bytes; at most {MAX_FRAME_BYTES} are allowed.")
    try:
        envelope = _decode_envelope(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SignatureError(f"The envelope cannot be read: {str(error)[:300]}.") from error
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise SignatureError(f"The envelope has {len(envelope.signatures)} signatures; at most {MAX_SIGNATURES} count.")
    return envelope


def _is_by(key: VerifyingKey, signature: str, signed: bytes) -> bool:
    try:
        key.public.verify(_bytes(signature, "signature"), signed)
    except (InvalidSignature, SignatureError):
        return False
    return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, what: str) -> bytes:
    """Decode base64 in either alphabet, for DSSE allows both (RFC 4648 sections 4 and 5)."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError as error:
        raise SignatureError(f"The envelope's {what} is not base64.") from error
