"""Signed frames: a DSSE envelope with Ed25519 signatures around a body that names the server, the agent and the time.

DSSE 1.0.2 (https://github.com/secure-systems-lab/dsse), Ed25519 as in RFC 8032. The signature covers the bytes of the
payload and its type; a payload is parsed only after its signature was verified.

cryptography is imported when there is a key: 9 MB of an agent that is not enrolled.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import msgspec

from broker.contract.codec import MAX_FRAME_BYTES
from broker.contract.limits import MAX_DEPTH
from broker.contract.strict_json import DecodeError, parse
from broker.contract.topics import Channel
from broker.errors import BrokerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "MAX_ENROLMENTS",
    "MAX_SIGNATURES",
    "Envelope",
    "Scope",
    "SignatureError",
    "SigningKey",
    "VerifyingKey",
    "payload_type",
    "pre_authentication_encoding",
    "read_body",
    "read_envelope",
    "read_public_key",
    "seal",
    "write_body",
]


MAX_SIGNATURES = 8
MAX_ENROLMENTS = 8
_ID_DIGITS = 16
_MAX_YEAR = 9000  # durations are added to it


class SignatureError(BrokerError):
    """An envelope, its body or a key is malformed, or no trusted key has signed the envelope."""

    code = "signature_error"


class _Signature(msgspec.Struct):
    sig: str
    keyid: str = ""


class Envelope(msgspec.Struct):
    """A DSSE envelope. Nothing in it may be trusted before `verify`."""

    payload: str
    payloadType: str
    signatures: list[_Signature]

    def verify(self, kind: str, keys: Sequence["VerifyingKey"]) -> tuple[bytes, tuple[str, ...]]:
        """Return the payload, and the ids of those of the keys that have signed it as this payload type.

        Raises SignatureError if none of them has. Key ids in the envelope are hints and prove nothing: a signature
        that names one of the keys is tried with that key, any other with all of them.
        """
        if self.payloadType != kind:
            raise SignatureError(f"The payload type is {self.payloadType[:80]!r}, not {kind!r}.", code="wrong_type")
        payload = self.unverified_payload()
        signed = pre_authentication_encoding(kind, payload)
        known = {key.id for key in keys}
        by = {
            key.id: [one.sig for one in self.signatures if one.keyid == key.id or one.keyid not in known]
            for key in keys
        }
        signers = tuple(key.id for key in keys if any(_signs(key, signature, signed) for signature in by[key.id]))
        if signers:
            return payload, signers
        names = ", ".join(signature.keyid[:_ID_DIGITS] or "a key without an id" for signature in self.signatures)
        raise SignatureError(
            f"No trusted key has signed it; its signatures are by: {names or 'no key'}.", code="untrusted"
        )

    def unverified_payload(self) -> bytes:
        """Return the payload, verified or not, so that a refusal can name its messages; raises SignatureError."""
        return _bytes(self.payload, "payload")


class _Marked(msgspec.Struct):
    payloadType: str | None = None


class _Body(msgspec.Struct):
    issuer: str
    audience: str
    enrolments: tuple[str, ...]
    not_before: datetime
    messages: msgspec.Raw


_T = TypeVar("_T")
_UNREADABLE = (msgspec.DecodeError, DecodeError, OverflowError, UnicodeDecodeError, RecursionError)
_BODY_DEPTH = MAX_DEPTH + 1  # a frame of commands in an object
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_marked = msgspec.json.Decoder(_Marked).decode
_decode_body = msgspec.json.Decoder(_Body).decode


@dataclass(frozen=True)
class SigningKey:
    """A private key of the server."""

    private: "Ed25519PrivateKey"

    @cached_property
    def public(self) -> "VerifyingKey":
        """Its public half."""
        return VerifyingKey(self.private.public_key())


@dataclass(frozen=True)
class VerifyingKey:
    """A public key that an agent trusts. Its `id` in an envelope is a hint, not a proof."""

    public: "Ed25519PublicKey"

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the key in DER (SubjectPublicKeyInfo, RFC 8410)."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()[:_ID_DIGITS]

    @property
    def pem(self) -> str:
        """The key in PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass(frozen=True)
class Scope:
    """The sender and the recipient of a signed frame.

    `issuer` is the server, `audience` the agent, `enrolments` the ids of the agent's enrolments that were valid when it
    was signed. `not_before` is that time, by the server's clock.
    """

    issuer: str
    audience: str
    enrolments: tuple[str, ...]
    not_before: datetime


def read_public_key(pem: str) -> VerifyingKey:
    """Return the Ed25519 public key that a PEM text holds; raises SignatureError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError("A signing key is not a public key in PEM.", code="invalid_key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError("A signing key is not an Ed25519 key.", code="invalid_key")
    return VerifyingKey(key)


def payload_type(channel: Channel) -> str:
    """Return the DSSE payload type for this channel. Types differ so that an ack cannot be replayed as a command."""
    return f"application/vnd.acm.{channel}+json"


def pre_authentication_encoding(kind: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: PAE(type, body) of the DSSE specification."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def write_body(scope: Scope, frame: bytes) -> bytes:
    """Return the payload to sign: a frame of messages with its scope."""
    return msgspec.json.encode(
        _Body(scope.issuer, scope.audience, scope.enrolments, scope.not_before, msgspec.Raw(frame))
    )


def read_body(payload: bytes) -> tuple[Scope, bytes]:
    """Return the scope and the frame of messages, not yet decoded, in a payload; raises SignatureError."""
    try:
        body = _strictly(_decode_body, payload)
        moment = body.not_before.astimezone(UTC) if body.not_before.tzinfo else None
    except _UNREADABLE as error:
        raise SignatureError(f"The signed body cannot be read: {str(error)[:300]}.", code="malformed") from error
    if moment is None or moment.year > _MAX_YEAR:
        message = f"`not_before` in the signed body must have a time zone and be before the year {_MAX_YEAR + 1}."
        raise SignatureError(message, code="malformed")
    if (count := len(body.enrolments)) > MAX_ENROLMENTS:
        message = f"The signed body names {count} enrolments; at most {MAX_ENROLMENTS} are allowed."
        raise SignatureError(message, code="malformed")
    return Scope(body.issuer, body.audience, body.enrolments, moment), bytes(body.messages)


def seal(kind: str, payload: bytes, keys: Iterable[SigningKey]) -> bytes:
    """Return the envelope of a payload, signed by each of the keys."""
    signed = pre_authentication_encoding(kind, payload)
    signatures = [_Signature(_base64(key.private.sign(signed)), key.public.id) for key in keys]
    return msgspec.json.encode(Envelope(_base64(payload), kind, signatures))


def read_envelope(frame: bytes) -> Envelope | None:
    """Return the envelope in a frame, not yet verified, or None if the frame is an unsigned one.

    A JSON object with a text `payloadType` is an envelope. Raises SignatureError if it is malformed or too large.
    """
    envelope, reason = None, f"it has {len(frame)} bytes; at most {MAX_FRAME_BYTES} are allowed"
    if len(frame) <= MAX_FRAME_BYTES:
        try:
            envelope = _strictly(_decode_envelope, frame)
        except _UNREADABLE as error:
            reason = str(error)[:300]
    if envelope is None and _has_payload_type(frame):
        raise SignatureError(f"The envelope cannot be read: {reason}.", code="malformed")
    if envelope is not None and (count := len(envelope.signatures)) > MAX_SIGNATURES:
        message = f"The envelope has {count} signatures; at most {MAX_SIGNATURES} are allowed."
        raise SignatureError(message, code="malformed")
    return envelope


def _has_payload_type(frame: bytes) -> bool:
    try:
        return _decode_marked(frame).payloadType is not None
    except _UNREADABLE:
        return False


def _strictly(decode: Callable[[bytes], _T], data: bytes) -> _T:
    """Decode by the rules for frames: the decoder alone would accept a key that occurs twice, and keep the last.

    What our own encoder would have written the same way has none, so only other encodings are parsed a second time.
    The messages in a body are parsed strictly later, when they are decoded.
    """
    value = decode(data)
    if msgspec.json.encode(value) != data:
        parse(data, MAX_FRAME_BYTES, _BODY_DEPTH)
    return value


def _signs(key: VerifyingKey, signature: str, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.public.verify(_bytes(signature, "signature"), signed)
    except (InvalidSignature, SignatureError):
        return False
    return True


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, what: str) -> bytes:
    """Decode base64 in either alphabet (RFC 4648 sections 4 and 5): DSSE allows both."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except ValueError as error:
        raise SignatureError(f"The envelope's {what} is not base64.", code="malformed") from error
