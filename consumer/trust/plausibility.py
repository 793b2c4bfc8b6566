"""Numbers that lead so far into the future that no server of ours can go on behind them.

Epochs and versions of key lists are milliseconds since 1970 by the server's clock, and an agent never goes back behind
one. Whoever holds a stolen key could bring it so far ahead that the server is not heard any more. Small numbers, as
another server may count them, are good.
"""

from datetime import datetime, timedelta

from broker.contract.commands.update_signing_keys import MAX_CLOCK_LEAD, UpdateSigningKeys
from broker.contract.messages import SequenceNumber

__all__ = [
    "epoch_too_far",
    "version_too_far",
]


_EPOCH_AHEAD_MS = 365 * 86_400_000
_EPOCH_STEP = 1_000_000


def epoch_too_far(asked: SequenceNumber, known_epoch: int, signed_at: datetime) -> str | None:
    """Say in one sentence why an epoch is refused; None: it is good.

    Beyond a year after the time of signing only small steps from the epoch that is known are taken. So a server whose
    clock was set back goes on, as does one that must get ahead of what a thief has sent.
    """
    if asked.epoch <= max(_ms(signed_at) + _EPOCH_AHEAD_MS, known_epoch + _EPOCH_STEP):
        return None
    return f"The epoch {asked.epoch} lies too far in the future: look at the clock of the server, and who else signs."


def version_too_far(said: UpdateSigningKeys, signed_at: datetime) -> str | None:
    """Say in one sentence why the version of a list of signing keys is refused; None: it is good."""
    if said.version <= _ms(signed_at) + MAX_CLOCK_LEAD / timedelta(milliseconds=1):
        return None
    return (
        f"Version {said.version} of the list of signing keys lies more than a day in the future: "
        "look at the clock of the server, and who else signs."
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
