"""Agents that have fallen silent: no message reports that, so the server looks for them now and then."""

from datetime import datetime

import sqlalchemy as sa

from broker.ledger.agents import is_silent, lock_selected
from broker.ledger.event_types import EventType
from broker.ledger.noted_events import note
from broker.ledger.tables import AGENTS

__all__ = [
    "any_new_silence",
    "note_silence",
]


def any_new_silence(connection: sa.Connection, now: datetime) -> bool:
    """Whether `note_silence` would find an agent. It reads all agents, which have no index for it."""
    return connection.scalar(sa.select(AGENTS.c.name).where(_has_fallen_silent(now)).limit(1)) is not None


def note_silence(connection: sa.Connection, now: datetime) -> list[str]:
    """Within a transaction, note each agent that has fallen silent since it was online; return their names."""
    lock_selected(connection, sa.select(AGENTS.c.name).where(_has_fallen_silent(now)))
    noted = AGENTS.update().where(_has_fallen_silent(now)).values(silent_at=now.timestamp())
    names = sorted(connection.scalars(noted.returning(AGENTS.c.name)))
    for name in names:
        note(connection, EventType.AGENT_SILENT, name, now=now)
    return names


def _has_fallen_silent(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(AGENTS.c.online.is_(True), AGENTS.c.silent_at.is_(None), is_silent(now))
