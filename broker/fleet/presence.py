"""Which agents are there, as far as the ledger can know now."""

from collections.abc import Sequence
from dataclasses import replace

from broker.contract.states import AgentState
from broker.ledger.agents import AgentRow
from broker.ledger.database import Database
from broker.ledger.server_lock import running_servers

__all__ = [
    "known_now",
]


def known_now(database: Database, rows: Sequence[AgentRow]) -> Sequence[AgentRow]:
    """Return these agents; while no server runs, it is unknown whether those that were online still are.

    Raises LedgerError.
    """
    if running_servers(database):
        return rows
    return [replace(row, state=AgentState.UNKNOWN) if row.state is AgentState.ONLINE else row for row in rows]
