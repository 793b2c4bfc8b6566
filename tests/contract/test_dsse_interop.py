"""Interoperation with securesystemslib, the DSSE implementation of TUF and in-toto, in both directions."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from broker.contract.dsse import (
    SignatureError,
    SigningKey,
    VerifyingKey,
    pre_authentication_encoding,
    read_envelope,
    seal,
)
from tests.support.errors import raises_code

KIND = "application/vnd.acm.command+json"
PAYLOAD = '{"text": "köy ÿþ?>~"}'.encode()
OURS, OTHER = (SigningKey(Ed25519PrivateKey.generate()) for _ in range(2))


def theirs(key: SigningKey) -> SSlibKey:
    """The public key as securesystemslib holds it, under the id that we give it."""
    return SSlibKey.from_crypto(key.public.public, keyid=key.public.id)


def signed_by_them(*keys: SigningKey, kind: str = KIND) -> dict[str, Any]:
    envelope = Envelope(PAYLOAD, kind, {})
    for key in keys:
        envelope.sign(CryptoSigner(key.private, theirs(key)))
    return envelope.to_dict()


def payload_of(envelope: dict[str, Any], keys: list[VerifyingKey]) -> bytes:
    read = read_envelope(json.dumps(envelope).encode())
    assert read is not None
    payload, _ = read.verify(KIND, keys)
    return payload


def url_safe(text: str) -> str:
    return text.replace("+", "-").replace("/", "_")


def test_securesystemslib_verifies_our_envelopes() -> None:
    envelope = Envelope.from_dict(json.loads(seal(KIND, PAYLOAD, [OURS, OTHER])))
    accepted = envelope.verify([theirs(OURS), theirs(OTHER)], threshold=2)
    assert set(accepted) == {OURS.public.id, OTHER.public.id}
    assert (envelope.payload, envelope.payload_type) == (PAYLOAD, KIND)
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([theirs(OURS)], threshold=1)


def test_envelopes_of_securesystemslib_are_verified() -> None:
    envelope = signed_by_them(OTHER, OURS)
    assert payload_of(envelope, [OURS.public]) == PAYLOAD
    stranger = SigningKey(Ed25519PrivateKey.generate())
    with raises_code(SignatureError, "untrusted"):
        payload_of(envelope, [stranger.public])
    with raises_code(SignatureError, "wrong_type"):
        payload_of(signed_by_them(OURS, kind="text/plain"), [OURS.public])


def test_signature_without_a_key_id_is_tried_with_every_key() -> None:
    envelope = signed_by_them(OURS)
    (named,) = envelope["signatures"]
    unnamed = {**envelope, "signatures": [{"sig": named["sig"]}]}
    assert payload_of(unnamed, [OTHER.public, OURS.public]) == PAYLOAD


def test_base64_of_either_alphabet_is_accepted() -> None:
    """DSSE's envelope.md: "Either standard or URL-safe encoding is allowed"."""
    standard = signed_by_them(OURS)
    (signature,) = standard["signatures"]
    assert "/" in standard["payload"]
    other = {**standard, "payload": url_safe(standard["payload"]), "signatures": [{"sig": url_safe(signature["sig"])}]}
    assert payload_of(other, [OURS.public]) == PAYLOAD


def test_signed_bytes_are_those_of_the_specifications_test_vector() -> None:
    """https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md, "Test Vectors"."""
    kind, body = "http://example.com/HelloWorld", b"hello world"
    said = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding(kind, body) == said == Envelope(body, kind, {}).pae()
