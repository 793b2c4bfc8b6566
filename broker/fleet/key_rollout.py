"""Sends a new list of signing keys to the agents, and reports which of them have confirmed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from broker.contract.commands.update_signing_keys import MAX_CLOCK_LEAD, UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.messages import Origin
from broker.enrolment.store import EnrolmentStore
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation

__all__ = [
    "RolloutProgress",
    "distribute",
    "rollout_of",
]


_TARGET = "agents with an enrolment"


@dataclass(frozen=True)
class RolloutProgress:
    """The agents with a valid enrolment, and the version of our list in each one's last status; 0 if there is none.

    `newest_reported` is the newest plausible version that any of them reports, of our list or of another.
    """

    versions: Mapping[str, int]
    newest_reported: int = 0

    def behind(self, version: int) -> list[str]:
        """Return the agents that have not confirmed this version or a later one, in order."""
        return [agent for agent, known in self.versions.items() if known < version]


def rollout_of(ledger: Ledger, enrolments: EnrolmentStore, newest: int, now: datetime) -> RolloutProgress:
    """Return the progress by the last statuses of the agents; `newest` is the current version of our list.

    A later version belongs to another list and confirms nothing. One so far ahead that agents would refuse it, or the
    version after it, does not count as the newest reported. Raises LedgerError.
    """
    limit = int((now + MAX_CLOCK_LEAD).timestamp() * 1000)
    reported = {row.name: row.status.signing_keys_version or 0 for row in ledger.agents() if row.status is not None}
    known = {name: reported.get(name, 0) for name in enrolments.enrolled_agents()}
    newest_reported = max((version for version in known.values() if version < limit), default=0)
    return RolloutProgress(
        {name: version if version <= newest else 0 for name, version in known.items()}, newest_reported
    )


def distribute(ledger: Ledger, rollout: RolloutProgress, update: UpdateSigningKeys, origin: Origin) -> Operation | None:
    """Send the list to the agents that have not confirmed it, as one operation; return None if there are none.

    Raises LedgerError.
    """
    behind = rollout.behind(update.version)
    if not behind:
        return None
    return ledger.add_operation(
        behind, _TARGET, CommandRequest(UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), origin)
    )
