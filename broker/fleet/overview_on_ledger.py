"""The fleet of a ledger at a glance, and lists of its agents, as a principal may see them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.enrolment.enrolment_states import certificates_ending
from broker.fleet.listed import Listed
from broker.fleet.models import AgentView
from broker.fleet.visibility import Visible
from broker.ledger.agent_listing import AgentListing, listed_agents
from broker.ledger.ledger import Ledger
from broker.ledger.overview import Share, ledger_overview
from broker.ledger.server_lock import running_servers

__all__ = [
    "EndingCertificate",
    "FleetOverview",
    "LedgerListings",
]


_LATELY = timedelta(days=1)
_SOON = timedelta(days=7)  # agents renew them at two thirds of their lifetime, by default 10 days before the end
_MOST_ENDING = 100


@dataclass(frozen=True)
class EndingCertificate:
    """The end of an agent's certificate, in UTC."""

    agent: str
    at: datetime


@dataclass(frozen=True)
class FleetOverview:
    """Agents by group and by version, commands of the last day that have failed, and certificates that end in 7 days.

    Of the certificates, the first 100.
    """

    groups: tuple[Share, ...]
    versions: tuple[Share, ...]
    failed: int
    failed_since: datetime
    ending: tuple[EndingCertificate, ...]


class LedgerListings:
    """All agents of a ledger, or those in one of `groups`. Every method may raise LedgerError."""

    def __init__(self, ledger: Ledger, groups: frozenset[str] | None = None) -> None:
        self._ledger = ledger
        self._groups = groups

    def overview(self) -> FleetOverview:
        """Return the fleet at a glance."""
        database, now = self._ledger.database, self._ledger.now()
        found = ledger_overview(database, self._groups, now, now - _LATELY)
        ending = certificates_ending(database, now + _SOON, self._groups, _MOST_ENDING)
        certificates = tuple(EndingCertificate(agent, at) for agent, at in ending)
        return FleetOverview(found.groups, found.versions, found.failed, now - _LATELY, certificates)

    def group_sizes(self) -> dict[str, int]:
        """Return how many agents are in each group, in order of name."""
        sizes = self._ledger.groups.sizes()
        return {group: size for group, size in sizes.items() if self._groups is None or group in self._groups}

    def agents(self, which: AgentListing, *, skip: int, limit: int) -> Listed[AgentView]:
        """Return at most `limit` agents of a list, after the first `skip`."""
        database, visible = self._ledger.database, Visible(self._ledger, self._groups)
        if which.group is not None and not visible.has_group(which.group):
            return Listed((), 0)
        rows, total = listed_agents(
            database,
            which,
            self._groups,
            self._ledger.now(),
            skip=skip,
            limit=limit,
            is_served=bool(running_servers(database)),
        )
        return Listed(tuple(visible.agents_shown(rows)), total)
