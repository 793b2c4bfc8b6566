"""Limits on numbers that must not jump so far ahead that no genuine server can follow.

Epochs and versions of key lists are milliseconds since 1970 by the server's clock, and an agent never accepts a lower
one again. An attacker with a stolen key could raise them until the agent refuses its own server. Small numbers, as
other servers may use, are accepted.
"""

from datetime import datetime, timedelta

from broker.contract.commands.update_signing_keys import MAX_CLOCK_LEAD, UpdateSigningKeys
from broker.contract.messages import SequenceNumber
from consumer.trust.refusal import Refusal

__all__ = [
    "check_epoch",
    "check_version",
]


_MAX_EPOCH_LEAD_MS = 365 * 86_400_000
_MAX_EPOCH_STEP = 1_000_000


def check_epoch(sequence: SequenceNumber, known_epoch: int, signed_at: datetime) -> Refusal | None:
    """Return why an epoch is refused, or None.

    Beyond a year after the time of signing, only small steps from the known epoch are accepted: a server whose clock
    was set back can continue, and so can one that must exceed an attacker's epochs.
    """
    if sequence.epoch <= max(_milliseconds(signed_at) + _MAX_EPOCH_LEAD_MS, known_epoch + _MAX_EPOCH_STEP):
        return None
    return Refusal(
        "epoch_too_far",
        f"The epoch {sequence.epoch} is too far in the future. Check the server's clock; if it is right, a signing "
        "key may be stolen.",
    )


def check_version(keys: UpdateSigningKeys, signed_at: datetime) -> Refusal | None:
    """Return why the version of a list of signing keys is refused, or None."""
    if keys.version <= _milliseconds(signed_at) + MAX_CLOCK_LEAD / timedelta(milliseconds=1):
        return None
    return Refusal(
        "version_too_far",
        f"Version {keys.version} of the list of signing keys is more than a day in the future. Check the server's "
        "clock; if it is right, a signing key may be stolen.",
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
