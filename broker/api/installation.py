"""What the API has of its installation besides the ledger: what its configuration names on this machine."""

from collections.abc import Sequence
from typing import Protocol

from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.pki.revocation_file import RevocationFile
from broker.signing.key_store import SigningKeyStore
from broker.system.checkup import Check

__all__ = [
    "ApiInstallation",
    "NotAvailableHere",
]


class NotAvailableHere(BrokerError):
    """The configuration of the API does not have what a request needs, or this machine cannot use it."""

    code = "not_available_here"


class ApiInstallation(Protocol):
    """The parts are opened when they are asked for, and raise NotAvailableHere if they cannot be."""

    @property
    def name_of_server(self) -> str:
        """The client id of the server at the broker, which no agent may have."""

    @property
    def enrolment_url(self) -> str:
        """The URL of the enrolment server for agents, as far as it is known."""

    def authority_fingerprint(self) -> str:
        """Return the fingerprint of the certificate authority."""

    def revocation_file(self, enrolments: EnrolmentStore) -> RevocationFile:
        """Return the revocation list that the broker reads."""

    def signing_keys(self) -> SigningKeyStore:
        """Return the list of the signing keys, without the private ones."""

    def checks(self) -> Sequence[Check]:
        """Return the checks of the doctor for this installation."""
