"""Forgetting an agent: it is not listed or addressed any more, until it is enrolled, sent a command or online again."""

from datetime import datetime

import sqlalchemy as sa

from broker.contract.states import ErrorCode
from broker.ledger.agents import get_or_create, update_agent
from broker.ledger.completion import complete_all
from broker.ledger.event_types import EventType
from broker.ledger.noted_events import note
from broker.ledger.tables import COMMANDS, GROUP_MEMBERS

__all__ = [
    "forget_agent",
]


_FORGOTTEN = "The agent was forgotten before a result arrived; the command may have run, or may still run."


def forget_agent(connection: sa.Connection, agent: str, now: datetime) -> int:
    """Within a transaction, forget an agent; return how many open commands were completed as interrupted."""
    get_or_create(connection, agent, now)
    count = complete_all(connection, [COMMANDS.c.agent == agent], ErrorCode.INTERRUPTED, _FORGOTTEN, now)
    connection.execute(GROUP_MEMBERS.delete().where(GROUP_MEMBERS.c.agent == agent))
    update_agent(connection, agent, forgotten_at=now.timestamp(), online=False, resend_at=None, attempts=0)
    note(connection, EventType.AGENT_FORGOTTEN, agent, now=now)
    return count
