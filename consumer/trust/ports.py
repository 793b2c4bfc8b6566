"""What the agent needs of its trust in a server: the keys, the enrolment, and updates of the keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from broker.contract.dsse import VerifyingKey

__all__ = [
    "Trust",
    "TrustedKeys",
]


class Trust(Protocol):
    """Which keys may sign, and for which enrolment."""

    @property
    def enrolment_id(self) -> str | None:
        """The id of the agent's current enrolment; None if it is not enrolled."""

    @property
    def valid_until(self) -> datetime:
        """When the enrolment's certificate expires (aware, UTC); no server signs for it later."""

    @property
    def keys(self) -> Sequence[VerifyingKey]:
        """The keys that are trusted now."""


class TrustedKeys(Trust, Protocol):
    """The signing keys that the agent trusts, for one enrolment or none; newer lists replace them.

    Any thread may call it.
    """

    @property
    def version(self) -> int | None:
        """The version of the trusted list of the server's keys; None if there is none."""

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of the trusted keys."""

    def update(self, keys: UpdateSigningKeys) -> None:
        """Trust these keys and no others, durably, as of the next message; an older list changes nothing.

        Raises SignatureError if one of them is not a key, EnrolmentError if the disk fails; then nothing has changed.
        """
