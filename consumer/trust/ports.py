"""What the receiver needs of whatever keeps the trusted signing keys."""

from collections.abc import Sequence
from typing import Protocol

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from consumer.trust.verification import Trust

__all__ = [
    "KeyKeeper",
    "TrustedKeys",
]


class KeyKeeper(Protocol):
    """Keeps the signing keys that the agent trusts; any thread may call it."""

    @property
    def version(self) -> int | None:
        """The version of the server's list of keys that the agent goes by; None where it trusts none."""

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of the keys that are trusted."""

    def update(self, said: UpdateSigningKeys) -> None:
        """Trust these keys and no others, durably and for the next message already; an older list changes nothing.

        Raises SignatureError when one of them is no key, EnrolmentError when the disk fails; nothing changed then.
        """


class TrustedKeys(Trust, KeyKeeper, Protocol):
    """The keys that must have signed what arrives, and their updates: one object, for one enrolment or none."""
