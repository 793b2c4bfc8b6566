"""The installation of an API, as its configuration names it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from broker.api.installation import NotAvailableHere
from broker.app.config import ServerConfig, enrolment_url
from broker.app.credentials import open_authority, open_revocation_file, open_signing_key_store
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.pki.revocation_file import RevocationFile
from broker.signing.key_store import SigningKeyStore
from broker.system.checkup import Check

__all__ = [
    "ConfiguredInstallation",
]


class ConfiguredInstallation:
    """What a configuration names; nothing is read before it is needed. `checks` are those of the doctor for one."""

    def __init__(self, config: ServerConfig, checks: Callable[[ServerConfig], Sequence[Check]] | None = None) -> None:
        self._config = config
        self._checks = checks

    @property
    def name_of_server(self) -> str:
        """The client id of the server at the broker."""
        return self._config.client_id

    @property
    def enrolment_url(self) -> str:
        """The URL of the enrolment server for agents; its host is `HOST` unless `enroll_broker` has it."""
        return enrolment_url(self._config)

    def authority_fingerprint(self) -> str:
        """Return the fingerprint of the authority in the directory `ca`."""
        with _needed("the certificate authority (`ca`)"):
            return open_authority(self._config).fingerprint

    def revocation_file(self, enrolments: EnrolmentStore) -> RevocationFile:
        """Return the list at `crl`, which the authority signs."""
        with _needed("the certificate authority (`ca`)"):
            return open_revocation_file(self._config, open_authority(self._config), enrolments)

    def signing_keys(self) -> SigningKeyStore:
        """Return the list in the directory `signing_keys`."""
        with _needed("the list of signing keys (`signing_keys`)"):
            return open_signing_key_store(self._config)

    def checks(self) -> Sequence[Check]:
        """Return the checks of the doctor for this configuration."""
        if self._checks is None:
            raise NotAvailableHere("This API has no doctor: run `acm doctor` on the server's machine.")
        with _needed("a configuration that can be checked"):
            return self._checks(self._config)


@contextmanager
def _needed(what: str) -> Iterator[None]:
    """Raise NotAvailableHere instead of what opening it has raised."""
    try:
        yield
    except BrokerError as error:
        raise NotAvailableHere(
            f"This needs {what}, which the API cannot use: {error} Set it in the API's configuration, or run `acm` on "
            "the server's machine."
        ) from error
