import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from broker.contract.private_keys import PrivateKeyError, private_key_from_pem, private_key_to_pem
from tests.support.errors import raises_code

KEY = Ed25519PrivateKey.generate()
ENCRYPTED = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


def test_private_key_survives_its_pem_form() -> None:
    pem = private_key_to_pem(KEY)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert private_key_from_pem(pem).public_key() == KEY.public_key()


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff",
        private_key_to_pem(KEY)[:-40],
        ENCRYPTED,
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "not-text", "cut-short", "encrypted", "public"],
)
def test_text_that_is_not_a_private_key_is_rejected(pem: bytes) -> None:
    with raises_code(PrivateKeyError, "malformed_private_key"):
        private_key_from_pem(pem)


def test_key_of_another_algorithm_is_rejected() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with raises_code(PrivateKeyError, "not_an_ed25519_key"):
        private_key_from_pem(pem)
