"""Messages of agents that the database refuses each time. Few are kept, for operators to look at.

Their text is ASCII, in which every database can store it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from broker.contract.secret_shapes import mask_shapes
from broker.ledger.insert import insert_missing
from broker.ledger.tables import REFUSED_MESSAGES, moment

__all__ = [
    "UnstoredMessage",
    "all_refused_messages",
    "keep_refused",
]


_MAX_PER_AGENT = 10
_MAX_ROWS = 1000  # an agent that accepts unsigned messages may have any name
_MAX_CONTENT = 1 << 14
_MAX_REASON = 500


@dataclass(frozen=True)
class UnstoredMessage:
    """A message of an agent on a channel, in ASCII, cut, and with secrets masked; why the database refused it.

    `command_id` is the command that it is about, or None.
    """

    agent: str
    channel: str
    command_id: str | None
    reason: str
    content: str
    received_at: datetime | None


def keep_refused(connection: sa.Connection, message: UnstoredMessage, now: datetime) -> None:
    """Within a transaction, keep a message unless it is already kept; delete the oldest beyond the limits."""
    digest = hashlib.sha256(f"{message.channel}\0{message.content}".encode("utf-8", "surrogatepass")).hexdigest()
    key = {"agent": message.agent, "digest": digest}
    table = REFUSED_MESSAGES.c
    if connection.scalar(sa.select(table.digest).where(table.agent == message.agent, table.digest == digest)):
        return
    values = {
        "channel": message.channel,
        "command_id": message.command_id and _ascii(message.command_id),
        "reason": _ascii(message.reason)[:_MAX_REASON],
        "content": mask_shapes(_ascii(message.content[:_MAX_CONTENT]))[:_MAX_CONTENT],
        "received_at": now.timestamp(),
    }
    insert_missing(connection, REFUSED_MESSAGES, [{**key, **values}])
    _delete_oldest(connection, table.agent == message.agent, _MAX_PER_AGENT)
    _delete_oldest(connection, sa.true(), _MAX_ROWS)


def all_refused_messages(connection: sa.Connection) -> Sequence[UnstoredMessage]:
    """Within a transaction, return what is kept, newest first."""
    rows = connection.execute(REFUSED_MESSAGES.select().order_by(*_NEWEST_FIRST))
    return [
        UnstoredMessage(it.agent, it.channel, it.command_id, it.reason, it.content, moment(it.received_at))
        for it in rows
    ]


_NEWEST_FIRST = (REFUSED_MESSAGES.c.received_at.desc(), REFUSED_MESSAGES.c.agent, REFUSED_MESSAGES.c.digest)


def _delete_oldest(connection: sa.Connection, among: sa.ColumnElement[bool], limit: int) -> None:
    table = REFUSED_MESSAGES.c
    beyond = sa.select(table.agent, table.digest).where(among).order_by(*_NEWEST_FIRST).offset(limit).limit(limit)
    for agent, digest in connection.execute(beyond).all():
        connection.execute(REFUSED_MESSAGES.delete().where(table.agent == agent, table.digest == digest))


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().replace("\0", r"\x00")
