"""What the agent needs of the trusted signing keys."""

from collections.abc import Sequence
from typing import Protocol

from broker.contract.commands.update_signing_keys import UpdateSigningKeys
from consumer.trust.verification import Trust

__all__ = [
    "TrustedKeys",
]


class TrustedKeys(Trust, Protocol):
    """The signing keys that the agent trusts, for one enrolment or none; newer lists replace them.

    Any thread may call it.
    """

    @property
    def version(self) -> int | None:
        """The version of the server's list of keys that is trusted; None if none is."""

    @property
    def key_ids(self) -> Sequence[str]:
        """The ids of the trusted keys."""

    def update(self, keys: UpdateSigningKeys) -> None:
        """Trust these keys and no others, durably and from the next message on; an older list changes nothing.

        Raises SignatureError if one of them is not a key, EnrolmentError if the disk fails; then nothing has changed.
        """
