"""Opens the identities that a configuration names: authority, enrolments, revocation list, signing keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic

import structlog

from broker.access.operator_certificates import OperatorCertificateStore
from broker.app.config import ServerConfig, ServerConfigurationError
from broker.app.factories import open_configured_database, utc_now
from broker.enrolment.store import EnrolmentStore
from broker.pki.authority import SERVER_CERTIFICATE, SERVER_KEY, CertificateAuthority, crl_path
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevokedCertificate
from broker.pki.server_certificates import CertificateFile
from broker.signing.key_source import SigningKeySource
from broker.signing.key_store import SigningKeyStore
from broker.signing.signer import Signer

__all__ = [
    "BROKER_PEM",
    "enrolment_server_pair",
    "open_authority",
    "open_enrolments",
    "open_revocation_file",
    "open_signing_key_store",
    "revocation_list_path",
    "server_certificate_files",
    "signer_of",
    "signing_keys_path",
]


BROKER_PEM = "broker.pem"
_log = structlog.get_logger("acm.server")


def open_authority(config: ServerConfig) -> CertificateAuthority:
    """Open the authority in the directory `ca`; raises AuthorityError and ExposedFileError."""
    return CertificateAuthority(Path(config.ca), now=utc_now)


def server_certificate_files(config: ServerConfig) -> list[CertificateFile]:
    """Return the files of the certificates of the broker, the server, the enrolment server and the API, as configured.

    `acm broker config` writes the broker's own beside `broker_ca`.
    """
    certificate, key = enrolment_server_pair(config)
    files = [CertificateFile(certificate, key)]
    if config.api_pair is not None:
        files.append(CertificateFile(*config.api_pair))
    tls = config.broker_tls
    if tls is not None:
        files.append(CertificateFile(tls.certificate, tls.key))
        joint = tls.ca.with_name(BROKER_PEM)
        files.append(CertificateFile(joint, joint, like=certificate if certificate.parent == joint.parent else None))
    return files


def enrolment_server_pair(config: ServerConfig) -> tuple[Path, Path]:
    """Return the files of the enrolment server's certificate and key, by default in the authority's directory."""
    authority = Path(config.ca)
    certificate = Path(config.enroll_certificate) if config.enroll_certificate else authority / SERVER_CERTIFICATE
    return certificate, Path(config.enroll_key) if config.enroll_key else authority / SERVER_KEY


def signing_keys_path(config: ServerConfig) -> Path:
    """Return the directory of the signing keys: `signing_keys`, by default `signing` in the authority's directory."""
    return Path(config.signing_keys) if config.signing_keys else Path(config.ca) / "signing"


def open_signing_key_store(config: ServerConfig) -> SigningKeyStore:
    """Open the list of signing keys, without the private keys; raises SigningKeyError and ExposedFileError."""
    return SigningKeyStore(signing_keys_path(config))


@contextmanager
def open_enrolments(config: ServerConfig, tell: Callable[[str], None] = lambda _: None) -> Iterator[EnrolmentStore]:
    """Open the enrolments in the ledger's database for a block; `tell` reports a migration. Raises LedgerError."""
    with open_configured_database(config.ledger, tell=tell) as database:
        yield EnrolmentStore(database, now=utc_now)


def open_revocation_file(
    config: ServerConfig, authority: CertificateAuthority, enrolments: EnrolmentStore
) -> RevocationFile:
    """Return the revocation list at `crl`, by default in the authority's directory: of agents and operators."""
    operators = OperatorCertificateStore(enrolments.database, now=utc_now)
    return RevocationFile(revocation_list_path(config), authority, _Revoked(enrolments, operators), now=utc_now)


@dataclass(frozen=True)
class _Revoked:
    """The revoked certificates of agents and of operators."""

    enrolments: EnrolmentStore
    operators: OperatorCertificateStore

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        """Return those that did not expire before `not_after`; raises LedgerError."""
        return self.enrolments.revoked_certificates(not_after) + self.operators.revoked_certificates(not_after)


def revocation_list_path(config: ServerConfig) -> Path:
    """Return the file of the revocation list: `crl`, by default `crl.pem` in the authority's directory."""
    return Path(config.crl) if config.crl else crl_path(Path(config.ca))


def signer_of(config: ServerConfig, enrolments: EnrolmentStore) -> Signer:
    """Return the signer of this configuration.

    Raises SigningKeyError, ExposedFileError, and ServerConfigurationError if agents are enrolled but there are no keys.
    """
    keys = SigningKeySource(signing_keys_path(config))
    if not keys():
        if enrolments.has_any():
            raise ServerConfigurationError(
                f"There are no signing keys in {keys.path}, but enrolled agents accept only signed messages: set "
                "signing_keys to the directory of the keys, or restore it from a backup.",
                code="lost_signing_keys",
            )
        _log.warning("commands_not_signed", signing_keys=str(keys.path))
    return Signer(config.client_id, keys, enrolments.recipients, now=utc_now, monotonic=monotonic)
