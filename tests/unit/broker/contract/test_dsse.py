"""Keys and bodies of another kind than the contract's."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.contract.dsse import (
    MAX_ENROLMENTS,
    Scope,
    SignatureError,
    read_body,
    read_envelope,
    read_public_key,
    write_body,
)
from tests.support.errors import raises_code


def test_public_key_of_another_kind_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (pem, "no key"):
        with raises_code(SignatureError, "invalid_key"):
            read_public_key(text)


@pytest.mark.parametrize("moment", ["2026-03-01T12:00:00", "9001-01-01T00:00:00Z"])
def test_body_without_a_time_zone_or_of_a_far_year_is_refused(moment: str) -> None:
    body = write_body(Scope("i", "web-01", ("e1",), datetime(2026, 3, 1, 12, tzinfo=UTC)), b"[]")
    assert read_body(body)[1] == b"[]"
    with raises_code(SignatureError, "malformed"):
        read_body(body.replace(b"2026-03-01T12:00:00Z", moment.encode()))


MOMENT = "2026-03-01T12:00:00Z"
BODY = f'{{"issuer":"s","audience":"a","enrolments":["e"],"not_before":"{MOMENT}","messages":[]}}'


def test_body_in_another_encoding_is_read() -> None:
    spaced = BODY.replace(",", ", ").encode()
    assert read_body(spaced) == read_body(BODY.encode())
    assert read_body(BODY.replace('"issuer"', '"later":[1],"issuer"').encode()) == read_body(BODY.encode())


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace('"audience":"a"', '"audience":"b","audience":"a"').encode(),
        BODY.replace('"messages":[]', '"messages":[1],"messages":[]').encode(),
        BODY.replace('"issuer"', '"later":{"x":1,"x":2},"issuer"').encode(),
        BODY.replace('"issuer"', '"later":"X","issuer"').encode().replace(b"X", b"\xff"),
        BODY.replace('"issuer"', f'"later":{2**64},"issuer"').encode(),
        BODY.replace('["e"]', str(["e"] * (MAX_ENROLMENTS + 1)).replace("'", '"')).encode(),
    ],
)
def test_body_that_breaks_the_rules_for_frames_is_refused(body: bytes) -> None:
    with raises_code(SignatureError, "malformed"):
        read_body(body)


@pytest.mark.parametrize(
    "envelope",
    [
        b'{"payloadType":"x","payloadType":"y","payload":"","signatures":[]}',
        b'{"payloadType":"x","payload":"","payload":"","signatures":[]}',
        b'{"payloadType":"x","payload":"","signatures":[{"sig":"A","sig":"B"}]}',
        b'{"payloadType":"x","payload":"","signatures":[],"later":"\xff"}',
    ],
)
def test_envelope_that_breaks_the_rules_for_frames_is_refused(envelope: bytes) -> None:
    with raises_code(SignatureError, "malformed"):
        read_envelope(envelope)
