"""Events that a transaction notes while it changes rows, and writes with its last statement."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.ledger.event_types import EventType
from broker.ledger.tables import EVENTS

__all__ = [
    "NotedEvent",
    "begin_noting",
    "events_in",
    "note",
    "note_all",
    "write_noted",
]


# design.md: "Events are rows of many, written last"
_NOTED = "acm_noted_events"
_PER_ROW = 500
_EVENTS_LOCK = 0x61636E  # the key of PostgreSQL's lock, beside that of migrations
_NUMBERS = {
    EventType.COMMAND_CREATED: 1,
    EventType.COMMAND_SENT: 2,
    EventType.COMMAND_ACCEPTED: 3,
    EventType.COMMAND_RUNNING: 4,
    EventType.COMMAND_CANCEL_REQUESTED: 5,
    EventType.COMMAND_COMPLETED: 6,
    EventType.AGENT_FIRST_SEEN: 7,
    EventType.AGENT_ONLINE: 8,
    EventType.AGENT_RESTARTED: 9,
    EventType.AGENT_CHANGED: 10,
    EventType.AGENT_SILENT: 11,
    EventType.AGENT_OFFLINE: 12,
    EventType.AGENT_FORGOTTEN: 13,
    EventType.OPERATION_COMPLETED: 14,
    EventType.AGENT_JOINED_GROUP: 15,
    EventType.AGENT_LEFT_GROUP: 16,
}
_TYPES = {number: event_type for event_type, number in _NUMBERS.items()}
_LAST = sa.select(sa.func.max(EVENTS.c.id)).scalar_subquery()
_START = sa.bindparam("start", type_=sa.BigInteger)
_COUNT = sa.bindparam("count", type_=sa.BigInteger)
_INSERT = EVENTS.insert().from_select(
    ["id", "at", "items"],
    sa.select(
        sa.func.coalesce(_LAST, _START) + _COUNT,
        sa.bindparam("at", type_=sa.Float),
        sa.bindparam("items", type_=sa.Text),
    ),
)


class NotedEvent(msgspec.Struct, array_like=True, frozen=True):
    """An event as it is stored: a number for its type, its agent, its command, and what more there is to say.

    `more` is how a command ended (`success`, or an error code), what has changed of an agent's status, with commas,
    or a group.
    """

    number: int
    agent: str
    command_id: str | None = None
    more: str | None = None

    @property
    def type(self) -> EventType | None:
        """The type of the event; None for one of a later version."""
        return _TYPES.get(self.number)


_ITEMS = msgspec.json.Decoder(list[NotedEvent])


class _Noted:
    """The events of one transaction, and when the first of them was noted, in seconds since 1970."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.events: list[NotedEvent] = []


def begin_noting(connection: sa.Connection) -> None:
    """Let the transaction of this connection note events."""
    connection.execution_options(**{_NOTED: _Noted()})


def note(
    connection: sa.Connection,
    event_type: EventType,
    agent: str,
    command_id: str | None = None,
    more: str | None = None,
    *,
    now: datetime,
) -> None:
    """Within a transaction, note an event of an agent or its command; it is written with the commit."""
    _note(connection, [NotedEvent(_NUMBERS[event_type], agent, command_id, more)], now)


def note_all(
    connection: sa.Connection, event_type: EventType, commands: Iterable[Sequence[Any]], *, now: datetime
) -> None:
    """Within a transaction, note an event of each of these commands: agent, id, and what more there is to say."""
    number = _NUMBERS[event_type]
    _note(connection, [NotedEvent(number, *command) for command in commands], now)


def write_noted(connection: sa.Connection) -> None:
    """Write what was noted, as the last statement of the transaction: the next writer waits for its end from here."""
    noted: _Noted = connection.get_execution_options()[_NOTED]
    if noted.at is None:
        return
    if connection.dialect.name != "sqlite":  # where a transaction that writes has the only lock
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_EVENTS_LOCK)))
    start = int(noted.at * 1000)
    for some in _batches(noted.events):
        items = msgspec.json.encode(some).decode()
        connection.execute(_INSERT, {"start": start, "count": len(some), "at": noted.at, "items": items})


def events_in(items: str) -> list[NotedEvent] | None:
    """Return the events in a row; None if it is damaged."""
    try:
        return _ITEMS.decode(items)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _note(connection: sa.Connection, events: Sequence[NotedEvent], now: datetime) -> None:
    noted: _Noted = connection.get_execution_options()[_NOTED]
    if events and noted.at is None:
        noted.at = now.timestamp()
    noted.events += events


def _batches(events: Sequence[NotedEvent]) -> Iterator[list[NotedEvent]]:
    rest = iter(events)
    while some := list(islice(rest, _PER_ROW)):
        yield some
