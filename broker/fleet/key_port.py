"""What an operator can read about the signing keys, on the server's machine or over the API."""

from typing import Protocol

from broker.fleet.key_models import SigningKeysView

__all__ = [
    "SigningKeyList",
]


class SigningKeyList(Protocol):
    """The list of the keys that sign messages to agents."""

    def signing_keys(self) -> SigningKeysView:
        """Return the keys, without the private ones, and which agents have not confirmed the list.

        Raises LedgerError, and SigningKeyError if the list cannot be read.
        """
