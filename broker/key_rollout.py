"""How a list of signing keys comes to the agents, and how far it has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from broker.contract.commands.update_signing_keys import (
    FURTHEST_AHEAD,
    UPDATE_SIGNING_KEYS,
    UpdateSigningKeys,
)
from broker.contract.messages import Origin
from broker.enrolments import Enrolments
from broker.ledger import Ledger
from broker.operations import Operation

__all__ = ["Rollout", "announce", "rollout_of"]

_TARGET = "agents with an enrolment"


@dataclass(frozen=True)
class Rollout:
    """The agents with a good enrolment, and the version of our list that each one's last status names; 0 for none.

    `newest_told` is the newest version that any of them tells, be it of our list or not, and a version could be.
    """

    versions: Mapping[str, int]
    newest_told: int = 0

    def behind(self, version: int) -> list[str]:
        """Return the agents that have not confirmed this version or a later one, in order."""
        return [agent for agent, known in self.versions.items() if known < version]


def rollout_of(ledger: Ledger, enrolments: Enrolments, newest: int, now: datetime) -> Rollout:
    """Look at the statuses of the agents with a good enrolment; `newest` is the version of our list now.

    A later one is of a list that is not ours, and confirms nothing. One that lies so far ahead that no agent would
    take it, or the next one, is nothing to get ahead of. Raises LedgerError.
    """
    furthest = int((now + FURTHEST_AHEAD).timestamp() * 1000)
    said = {row.name: row.status.signing_keys_version or 0 for row in ledger.agents() if row.status is not None}
    known = {name: said.get(name, 0) for name in enrolments.good_agents()}
    told = max((version for version in known.values() if version < furthest), default=0)
    return Rollout({name: version if version <= newest else 0 for name, version in known.items()}, told)


def announce(ledger: Ledger, rollout: Rollout, update: UpdateSigningKeys, origin: Origin) -> Operation | None:
    """Tell the agents that have not confirmed it of this list, as one operation; None where there are none.

    Raises LedgerError.
    """
    behind = rollout.behind(update.version)
    if not behind:
        return None
    return ledger.add_operation(behind, _TARGET, UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), origin)
