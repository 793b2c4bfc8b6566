"""Expired commands that can no longer begin: the server completes them, so that no user waits for a dead agent.

Only an agent knows whether a command has begun, so those that it has accepted are left to it.
"""

from datetime import datetime

import sqlalchemy as sa

from broker.contract.states import ErrorCode
from broker.ledger.agents import is_silent, lock_agents_of
from broker.ledger.completion import complete_by_server
from broker.ledger.records import CommandRecord, read_all
from broker.ledger.tables import AGENTS, COMMANDS, CommandState, moment

__all__ = [
    "any_expired",
    "settle_expired",
]


_GRACE_S = 60.0  # what an agent that went away had sent may still be on its way; its clock may be behind
_PER_TRANSACTION = 100


def any_expired(connection: sa.Connection, now: datetime, *, may_be_sent: bool) -> bool:
    """Whether `settle_expired` would complete any command."""
    query = sa.select(COMMANDS.c.id).where(_has_expired(now, may_be_sent=may_be_sent))
    return connection.scalar(query.limit(1)) is not None


def settle_expired(connection: sa.Connection, now: datetime, *, may_be_sent: bool) -> list[CommandRecord]:
    """Within a transaction, complete some expired commands that were never sent; return them.

    `may_be_sent`: also those that were sent to an agent that is away and has not accepted them.
    """
    has_expired = _has_expired(now, may_be_sent=may_be_sent)
    some = sa.select(COMMANDS.c.id).where(has_expired).order_by(COMMANDS.c.agent, COMMANDS.c.id).limit(_PER_TRANSACTION)
    ids = COMMANDS.c.id.in_(list(connection.scalars(some)))
    lock_agents_of(connection, ids)
    records = read_all(connection, COMMANDS.select().where(ids, has_expired), CommandRecord)
    for record in records:
        complete_by_server(connection, record, ErrorCode.EXPIRED, _message(record), now)
    return records


def _has_expired(now: datetime, *, may_be_sent: bool) -> sa.ColumnElement[bool]:
    time = now.timestamp()
    never_sent = sa.and_(COMMANDS.c.state == CommandState.QUEUED, COMMANDS.c.expires_at <= time)
    if not may_be_sent:
        return never_sent
    is_away = sa.or_(AGENTS.c.online.is_(False), is_silent(now))
    unanswered = sa.and_(
        COMMANDS.c.state == CommandState.SENT,
        COMMANDS.c.expires_at <= time - _GRACE_S,
        COMMANDS.c.agent.in_(sa.select(AGENTS.c.name).where(is_away)),
    )
    return sa.or_(never_sent, unanswered)


def _message(record: CommandRecord) -> str:
    expired = f"The command expired at {moment(record.expires_at):%Y-%m-%d %H:%M:%S} UTC"
    if record.state == CommandState.QUEUED:
        return f"{expired} and was never sent."
    return (
        f"{expired}. It was sent to {record.agent}, which is away and has not accepted it; if it received it in time "
        "nevertheless, its own result replaces this one."
    )
