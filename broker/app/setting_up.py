"""Makes the files of an installation: its authority with signing keys, and the directory of its broker."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from broker.app.broker_directory import BrokerDirectory, WrittenFiles, refuse_name_of_agent
from broker.app.config import ServerConfig
from broker.app.credentials import open_authority, open_enrolments, open_revocation_file, signing_keys_path
from broker.pki.authority import create_authority, has_authority, is_unused_authority
from broker.signing.key_directory import KeyDirectory
from broker.signing.key_store import create_signing_keys

__all__ = [
    "create_identities",
    "has_identities",
    "write_broker_directory",
]


def has_identities(config: ServerConfig) -> bool:
    """Whether `create_identities` was completed here; raises SigningKeyError."""
    keys = signing_keys_path(config)
    return has_authority(Path(config.ca)) and keys.exists() and KeyDirectory(keys).is_used()


def create_identities(config: ServerConfig, name: str = "acm authority") -> None:
    """Create the authority `ca`, with an empty revocation list, and a key that signs commands.

    A call that was interrupted is completed by the next one. Raises AuthorityError, SigningKeyError, CertificateError
    and ExposedFileError; a directory with anything else is refused.
    """
    directory, keys = Path(config.ca), signing_keys_path(config)
    if not is_unused_authority(directory, keys) or (keys.exists() and KeyDirectory(keys).is_used()):
        create_authority(directory, name, datetime.now(UTC))
    create_signing_keys(keys, datetime.now(UTC))


def write_broker_directory(directory: BrokerDirectory, config: ServerConfig) -> WrittenFiles:
    """Write certificates, missing configuration files and the revocation list; `config` names authority and ledger.

    Raises AuthorityError, BrokerDirectoryError, CertificateError, InvalidName, LedgerError and ExposedFileError.
    """
    authority = open_authority(config)
    with open_enrolments(config) as enrolments:
        refuse_name_of_agent(config.client_id, enrolments)
        written = directory.write(authority)
        listing = msgspec.structs.replace(config, crl=str(directory.revocation_list))
        open_revocation_file(listing, authority, enrolments).write()
    return written
