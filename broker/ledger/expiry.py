"""Expired commands that can no longer begin: the server completes them, so that no user waits for a dead agent.

Only an agent knows whether a command has begun, so those that it has accepted are left to it.
"""

from dataclasses import replace
from datetime import datetime

import msgspec
import sqlalchemy as sa

from broker.contract.messages import Feedback
from broker.contract.states import ErrorCode
from broker.ledger.agents import is_silent, lock_agents_of
from broker.ledger.completion import complete_by_server
from broker.ledger.event_types import EventType
from broker.ledger.noted_events import note
from broker.ledger.records import CommandRecord, read_all
from broker.ledger.stored_results import readable_result, stored_result
from broker.ledger.tables import AGENTS, COMMANDS, IS_PRESUMED_EXPIRED, MAY_EXPIRE, CommandState, moment

__all__ = [
    "any_expired",
    "doubt_expired",
    "settle_expired",
]


_GRACE_S = 60.0  # what an agent that went away had sent may still be on its way; its clock may be behind
_PER_TRANSACTION = 100
_WAS_SENT = "was_sent"
_LOST = (
    "The command was sent and expired while its agent was away, and the agent has lost its command store since; it may "
    "have run in time or not. Check, then send a new one."
)


def any_expired(connection: sa.Connection, now: datetime, *, may_be_sent: bool) -> bool:
    """Whether `settle_expired` would complete any command."""
    query = sa.select(COMMANDS.c.id).where(_has_expired(now, may_be_sent=may_be_sent))
    return connection.scalar(query.limit(1)) is not None


def settle_expired(connection: sa.Connection, now: datetime, *, may_be_sent: bool) -> list[CommandRecord]:
    """Within a transaction, complete some expired commands that were never sent; return them.

    `may_be_sent`: also those that were sent to an agent that is away and has not accepted them.
    """
    has_expired = _has_expired(now, may_be_sent=may_be_sent)
    some = sa.select(COMMANDS.c.id).where(has_expired).order_by(COMMANDS.c.expires_at).limit(_PER_TRANSACTION)
    ids = COMMANDS.c.id.in_(list(connection.scalars(some)))
    lock_agents_of(connection, ids)
    records = read_all(connection, COMMANDS.select().where(ids, has_expired), CommandRecord)
    for record in records:
        data = {_WAS_SENT: record.state != CommandState.QUEUED}
        complete_by_server(connection, record, ErrorCode.EXPIRED, _message(record), now, data)
    return records


def doubt_expired(connection: sa.Connection, agent: str, now: datetime) -> None:
    """Within a transaction, report expired commands as interrupted that an agent may have had in a lost store.

    Its own result, which would have shown that one ran in time, is lost with the store.
    """
    presumed = COMMANDS.select().where(IS_PRESUMED_EXPIRED, COMMANDS.c.agent == agent)
    for record in read_all(connection, presumed, CommandRecord):
        result = readable_result(record) or {}
        if result.get("code") == ErrorCode.EXPIRED and (result.get("data") or {}).get(_WAS_SENT):
            doubted = replace(msgspec.convert(result, Feedback), code=ErrorCode.INTERRUPTED, message=_LOST)
            changed = COMMANDS.update().where(COMMANDS.c.id == record.id)
            connection.execute(changed.values(result=stored_result(doubted, record)))
            note(connection, EventType.COMMAND_COMPLETED, agent, record.id, ErrorCode.INTERRUPTED, now=now)


def _has_expired(now: datetime, *, may_be_sent: bool) -> sa.ColumnElement[bool]:
    time = now.timestamp()
    can_begin_no_more = COMMANDS.c.state == CommandState.QUEUED
    if may_be_sent:
        is_away = sa.or_(AGENTS.c.online.is_(False), is_silent(now))
        unanswered = sa.and_(
            COMMANDS.c.expires_at <= time - _GRACE_S, COMMANDS.c.agent.in_(sa.select(AGENTS.c.name).where(is_away))
        )
        can_begin_no_more = sa.or_(can_begin_no_more, unanswered)
    return sa.and_(MAY_EXPIRE, COMMANDS.c.expires_at <= time, can_begin_no_more)


def _message(record: CommandRecord) -> str:
    expired = f"The command expired at {moment(record.expires_at):%Y-%m-%d %H:%M:%S} UTC"
    if record.state == CommandState.QUEUED:
        return f"{expired} and was never sent."
    return (
        f"{expired}. It was sent to {record.agent}, which is away and has not accepted it; if it received it in time "
        "nevertheless, its own result replaces this one."
    )
