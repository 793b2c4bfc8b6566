"""Opens what a configuration names for identities: authority, enrolments, signing keys, revocation list."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import structlog

from broker.app.config import ConfigurationError, ServerConfig
from broker.app.factories import open_database, utc_now
from broker.contract.dsse import SigningKey
from broker.enrolment.store import EnrolmentStore
from broker.pki.authority import CertificateAuthority, crl_path
from broker.pki.revocation_file import RevocationFile
from broker.signing.key_list import SigningKeyError
from broker.signing.key_store import SigningKeys, SigningKeyStore
from broker.signing.signer import Signer

__all__ = [
    "SigningKeySource",
    "open_authority",
    "open_enrolments",
    "open_revocation_file",
    "open_signing_key_store",
    "open_signing_keys",
    "signer_of",
    "signing_keys_path",
]


_log = structlog.get_logger("acm.server")


def open_authority(config: ServerConfig) -> CertificateAuthority:
    """Open the authority in the directory `ca`; raises AuthorityError."""
    return CertificateAuthority(Path(config.ca), now=utc_now)


def signing_keys_path(config: ServerConfig) -> Path:
    """Return where the signing keys are: `signing_keys`, or `signing` in the authority's directory."""
    return Path(config.signing_keys) if config.signing_keys else Path(config.ca) / "signing"


def open_signing_key_store(config: ServerConfig) -> SigningKeyStore:
    """Open the list of the signing keys, without the private ones; raises SigningKeyError."""
    return SigningKeyStore(signing_keys_path(config))


def open_signing_keys(config: ServerConfig) -> SigningKeys:
    """Open the signing keys; raises SigningKeyError."""
    return SigningKeys(signing_keys_path(config))


@contextmanager
def open_enrolments(config: ServerConfig) -> Iterator[EnrolmentStore]:
    """Open the enrolments in the ledger's database for a block; raises LedgerError."""
    with open_database(config.ledger) as database:
        yield EnrolmentStore(database, now=utc_now)


def open_revocation_file(
    config: ServerConfig, authority: CertificateAuthority, enrolments: EnrolmentStore
) -> RevocationFile:
    """Return the list at `crl`, or in the authority's directory where no place is configured."""
    path = Path(config.crl) if config.crl else crl_path(Path(config.ca))
    return RevocationFile(path, authority, enrolments, now=utc_now)


class SigningKeySource:
    """The keys that sign, looked for again as long as there are none. Raises SigningKeyError."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.path = signing_keys_path(config)
        self._found: SigningKeys | None = None

    def __call__(self) -> Sequence[SigningKey]:
        """Return the keys of now; none where there is no directory of keys."""
        if self._found is None and self._are_there():
            self._found = open_signing_keys(self._config)
        return self._found.signing if self._found else ()

    def _are_there(self) -> bool:
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise SigningKeyError(
                f"{self.path} cannot be looked at: {error.strerror}; run this as the user whose keys they are."
            ) from error
        return True


def signer_of(config: ServerConfig, enrolments: EnrolmentStore) -> Signer:
    """Return what signs for this configuration; raises ConfigurationError where keys were lost, and SigningKeyError."""
    keys = SigningKeySource(config)
    if not keys():
        if enrolments.any_agents():
            raise ConfigurationError(
                f"There are no signing keys in {keys.path}, but agents that were enrolled take nothing unsigned: say "
                "by signing_keys where the keys are, or restore them from a backup."
            )
        _log.warning("commands_are_not_signed", signing_keys=str(keys.path))
    return Signer(config.client_id, keys, enrolments.recipients, now=utc_now, monotonic=monotonic)
