"""Reads the log of events, in the order in which they were committed, and keeps it bounded."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from broker.errors import LedgerError
from broker.ledger.database import Database
from broker.ledger.event_types import EventType
from broker.ledger.failures import retry_conflicts
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.noted_events import NotedEvent, events_in
from broker.ledger.tables import COMMANDS, EVENTS, utc

__all__ = [
    "EventLog",
    "EventPage",
    "EventsPruned",
    "StoredEvent",
]


_KEPT_FOR = timedelta(days=7)
_MOST_KEPT = 250_000
_ROWS_PER_PAGE = 8  # of at most 500 events each
_ROWS_PER_TRANSACTION = 200
_GIVEN_COMMANDS = sa.select(COMMANDS.c.id, COMMANDS.c.type, COMMANDS.c.operation_id).where(
    COMMANDS.c.id.in_(given_keys())
)


class EventsPruned(LedgerError):
    """The events that follow an event are not kept any more, or it is of another ledger: start again."""

    code = "events_pruned"


@dataclass(frozen=True)
class StoredEvent:
    """An event, with its place in the order of all. `command_type` and `operation_id` are those of its command.

    `more` is how a command ended (`success`, or its error code), what has changed of an agent, with commas, or a group.
    """

    id: int
    at: datetime
    type: EventType
    agent: str
    command_id: str | None
    command_type: str | None
    operation_id: str | None
    more: str | None


@dataclass(frozen=True)
class EventPage:
    """Some events in their order, and the position after them, from which to read on."""

    events: tuple[StoredEvent, ...]
    position: int


class EventLog:
    """The events in the ledger's database. A position is the id of the last event that was read; 0 is the beginning.

    Events are kept for 7 days, and about `most` of them. Raises LedgerError if the database fails.
    """

    def __init__(self, database: Database, now: Callable[[], datetime], most: int = _MOST_KEPT) -> None:
        self.database = database
        self._now = now
        self._most = most

    def end(self) -> int:
        """Return the position after the newest event."""
        with self.database.reading() as connection:
            return connection.scalar(sa.select(sa.func.max(EVENTS.c.id))) or 0

    def before(self, moment: datetime) -> int:
        """Return the position before the first event since a time: the beginning, if none is older."""
        first = sa.select(EVENTS.c.id).where(EVENTS.c.at >= moment.timestamp()).order_by(EVENTS.c.id).limit(1)
        with self.database.reading() as connection:
            found = connection.scalar(first)
            older = sa.select(sa.func.max(EVENTS.c.id))
            return connection.scalar(older if found is None else older.where(EVENTS.c.id < found)) or 0

    def require(self, position: int) -> None:
        """Raise EventsPruned unless all that follows a position is kept."""
        self._read(position, 1)

    def after(self, position: int) -> EventPage:
        """Return the next events after a position; none at the end. Raises EventsPruned.

        What its command's row would say is left out once `acm prune` has removed that, and events of types that only a
        later version knows are left out.
        """
        found, end = self._read(position, _ROWS_PER_PAGE)
        names = {event.command_id for _, _, event in found if event.command_id is not None}
        commands: dict[str, Any] = {}
        if names:
            with self.database.reading() as connection:
                commands = {row.id: row for row in connection.execute(_GIVEN_COMMANDS, as_keys(names))}
        known = (_event(*it, commands) for it in found)
        return EventPage(tuple(it for it in known if it is not None), end)

    def _read(self, position: int, limit: int) -> tuple[list[tuple[int, float, NotedEvent]], int]:
        query = EVENTS.select().where(EVENTS.c.id >= position).order_by(EVENTS.c.id).limit(limit)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        if position and not rows:
            raise _pruned(position)
        return _events_after(position, rows)

    def prune(self) -> int:
        """Remove what is too old or too much, in small transactions; return how many rows. The newest row stays."""
        removed = 0
        while self._has_too_much():
            removed += self._prune_some()
        return removed

    def _has_too_much(self) -> bool:
        with self.database.reading() as connection:
            return bool(self._oldest_unwanted(connection, 1))

    @retry_conflicts
    def _prune_some(self) -> int:
        with self.database.transaction() as connection:
            unwanted = self._oldest_unwanted(connection, _ROWS_PER_TRANSACTION)
            return connection.execute(EVENTS.delete().where(EVENTS.c.id.in_(unwanted))).rowcount

    def _oldest_unwanted(self, connection: sa.Connection, limit: int) -> list[int]:
        """Return those of the oldest rows that are not to be kept; a clock that was set back keeps them longer."""
        newest = connection.scalar(sa.select(sa.func.max(EVENTS.c.id))) or 0
        oldest_at = (self._now() - _KEPT_FOR).timestamp()
        query = sa.select(EVENTS.c.id, EVENTS.c.at).where(EVENTS.c.id < newest).order_by(EVENTS.c.id).limit(limit)
        rows = connection.execute(query).all()
        return [row.id for row in rows if row.at < oldest_at or row.id <= newest - self._most]


def _events_after(position: int, rows: Iterable[Any]) -> tuple[list[tuple[int, float, NotedEvent]], int]:
    """Return the events in these rows after a position, each with its id and its time, and the position after them.

    Events end where the next ones are missing. Raises EventsPruned if they are missing at once.
    """
    found: list[tuple[int, float, NotedEvent]] = []
    end = position
    for row in rows:
        events = events_in(row.items) if row.id > position else None
        first = row.id if events is None else row.id - len(events) + 1  # a damaged row is passed over
        if end and events is not None and first > end + 1:
            if found:
                break
            raise _pruned(position)
        found += ((first + place, row.at, it) for place, it in enumerate(events or ()) if first + place > position)
        end = row.id
    return found, end


def _event(event_id: int, at: float, noted: NotedEvent, commands: Mapping[str, Any]) -> StoredEvent | None:
    if noted.type is None:
        return None
    command = commands.get(noted.command_id or "")
    kind, operation = (None, None) if command is None else (command.type, command.operation_id)
    return StoredEvent(event_id, utc(at), noted.type, noted.agent, noted.command_id, kind, operation, noted.more)


def _pruned(position: int) -> EventsPruned:
    return EventsPruned(
        f"What followed the event {position} is not kept any more: look at what there is now, and read on from the end."
    )
