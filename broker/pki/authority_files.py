"""The files of an authority, and of the successor that replaces it in a rollover.

Beside `ca.crt` and `ca.key`, the authority's, there may be `next.crt` and `next.key`, those of its successor. Each
change is complete with one rename, of the certificate; a key that was left over by a crash is found by its certificate.
"""

import re
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.contract.private_keys import PrivateKeyError, private_key_from_pem, private_key_to_pem
from broker.errors import BrokerError
from broker.pki.certificates import Issuer, authority_certificate
from broker.system.files import sync_directory, write_durably

__all__ = [
    "CA_CERTIFICATE",
    "CA_KEY",
    "SUCCESSOR_CERTIFICATE",
    "SUCCESSOR_KEY",
    "AuthorityError",
    "complete_promotion",
    "is_half_promoted",
    "promote",
    "read_issuers",
    "write_successor",
]


CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
SUCCESSOR_CERTIFICATE = "next.crt"
SUCCESSOR_KEY = "next.key"
_SECRET, _PUBLIC = 0o600, 0o644
_GENERATION = re.compile(r"(.*) G(\d{1,6})")


class AuthorityError(BrokerError):
    """The authority's directory cannot be created, read or written."""

    code = "authority_error"


def read_issuers(directory: Path) -> tuple[Issuer, Issuer | None]:
    """Return the authority and its successor, if there is one. Raises AuthorityError and OSError."""
    try:
        current = _read_issuer(directory, CA_CERTIFICATE, (CA_KEY, SUCCESSOR_KEY))
    except (AuthorityError, FileNotFoundError):  # a rename between two reads?
        current = _read_issuer(directory, CA_CERTIFICATE, (CA_KEY, SUCCESSOR_KEY))
    try:
        return current, _read_issuer(directory, SUCCESSOR_CERTIFICATE, (SUCCESSOR_KEY,))
    except FileNotFoundError:
        return current, None


def write_successor(directory: Path, now: datetime) -> None:
    """Create the successor's files. Raises CertificateError and OSError."""
    current, _ = read_issuers(directory)
    complete_promotion(directory)
    key = Ed25519PrivateKey.generate()
    certificate = authority_certificate(_next_name(current.certificate), key, now)
    write_durably(directory / SUCCESSOR_KEY, private_key_to_pem(key), _SECRET)
    write_durably(directory / SUCCESSOR_CERTIFICATE, certificate.public_bytes(Encoding.PEM), _PUBLIC)


def promote(directory: Path) -> None:
    """Let the successor take the authority's place; `complete_promotion` deletes the former key. Raises OSError."""
    (directory / SUCCESSOR_CERTIFICATE).replace(directory / CA_CERTIFICATE)
    sync_directory(directory)


def is_half_promoted(directory: Path) -> bool:
    """Whether a promotion was not completed: the authority's key still has the successor's name."""
    certificate = _read_certificate(directory / CA_CERTIFICATE)
    if not (directory / SUCCESSOR_KEY).exists() or (directory / SUCCESSOR_CERTIFICATE).exists():
        return False
    if _read_key(directory / CA_KEY).public_key() == certificate.public_key():
        return False  # the key is of a successor that never had a certificate
    return _read_key(directory / SUCCESSOR_KEY).public_key() == certificate.public_key()


def complete_promotion(directory: Path) -> None:
    """Give the authority's key its name, which deletes the former one. Raises OSError."""
    if is_half_promoted(directory):
        (directory / SUCCESSOR_KEY).replace(directory / CA_KEY)
        sync_directory(directory)


def _read_issuer(directory: Path, certificate_name: str, key_names: tuple[str, ...]) -> Issuer:
    certificate = _read_certificate(directory / certificate_name)
    for name in key_names:
        path = directory / name
        if path.exists() and (key := _read_key(path)).public_key() == certificate.public_key():
            return Issuer(certificate, key)
    (directory / key_names[0]).read_bytes()  # raises what keeps it from being read
    raise AuthorityError(
        f"{directory / key_names[0]} is not the key of {certificate_name}: restore the directory from a backup.",
        code="wrong_authority_key",
    )


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise AuthorityError(
            f"{path} is damaged: restore the directory from a backup.", code="damaged_authority"
        ) from error


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        return private_key_from_pem(path.read_bytes())
    except PrivateKeyError as error:
        raise AuthorityError(
            f"{path} is damaged: restore the directory from a backup.", code="damaged_authority"
        ) from error


def _next_name(certificate: x509.Certificate) -> str:
    """Return another name than the authority's: clients look for issuers by their names."""
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    found = _GENERATION.fullmatch(str(attribute.value))
    name, number = (found[1], int(found[2])) if found else (str(attribute.value), 1)
    return f"{name[:50]} G{number + 1}"
