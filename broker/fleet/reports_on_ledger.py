"""Reports on the fleet of a ledger, as a principal may see it."""

from dataclasses import replace

from broker.contract.messages import JournalMark
from broker.contract.states import AgentState
from broker.fleet.models import MAX_PAGE, PageOf
from broker.fleet.report_models import AuditState, FleetSummary, JournalPlace, UnmatchedResultView, WaitingCommand
from broker.fleet.views import view_of_unmatched
from broker.fleet.visibility import Visible
from broker.ledger.commands import UnknownCommand
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import running_servers

__all__ = [
    "LedgerReports",
]


class LedgerReports:
    """Reports on all agents of a ledger, or on those in one of `groups`. Every method may raise LedgerError."""

    def __init__(self, ledger: Ledger, groups: frozenset[str] | None = None) -> None:
        self._ledger = ledger
        self._visible = Visible(ledger, groups)

    def summary(self) -> FleetSummary:
        """Return how many agents and open commands are in each state. It reads no ended command."""
        counts, servers = self._ledger.summary(self._visible.groups), running_servers(self._ledger.database)
        agents = dict(counts.agents)
        if not servers and AgentState.ONLINE in agents:  # it is unknown whether they still are
            agents[AgentState.UNKNOWN] = agents.get(AgentState.UNKNOWN, 0) + agents.pop(AgentState.ONLINE)
        return FleetSummary(
            agents,
            dict(counts.open_commands),
            self._waiting(counts.oldest_queued),
            servers=len(servers),
            connected_servers=sum(it.connection_at is not None and it.connection_problem is None for it in servers),
        )

    def unmatched(
        self, *, agent: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[UnmatchedResultView]:
        """Return a page of results that answer no open command, newest first.

        Raises UnknownAgent, and InvalidArgument for a cursor.
        """
        if agent is not None:
            self._visible.agent(agent)
        rows, end = self._ledger.page_of_unmatched(cursor, min(limit, MAX_PAGE), agent)
        members = self._visible.members()
        return PageOf(tuple(view_of_unmatched(it) for it in rows if members is None or it.agent in members), end)

    def audit_state(self, agent: str) -> AuditState:
        """Return how far the journal of an agent was verified. Raises UnknownAgent."""
        status, verified = self._visible.agent(agent).status, self._ledger.audits.verified(agent)
        state = AuditState(agent, _place(status.audit_head if status else None), None, None, None)
        if verified is None:
            return state
        place, accepted = _place(verified.head), _place(verified.accepted)
        return replace(state, verified=place, verified_at=verified.at, accepted=accepted)

    def _waiting(self, command_id: str | None) -> WaitingCommand | None:
        if command_id is None:
            return None
        try:
            row = self._ledger.get(command_id)
        except UnknownCommand:  # removed meanwhile
            return None
        return WaitingCommand(command_id, row.agent, row.command.type, row.command.created_at)


def _place(mark: JournalMark | None) -> JournalPlace | None:
    return None if mark is None else JournalPlace(mark.number, mark.hash)
