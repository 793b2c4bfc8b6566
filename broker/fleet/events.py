"""Events as an operator sees them: read from the ledger, for a filter and the groups of a principal."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from broker.contract.states import ErrorCode, Outcome
from broker.errors import InvalidArgument
from broker.fleet.models import EventFilter, EventView
from broker.ledger.event_log import StoredEvent
from broker.ledger.event_types import EventType
from broker.ledger.ledger import Ledger

__all__ = [
    "EventScope",
    "EventSpan",
    "SeenEvent",
    "each_event",
    "events_after",
    "span_of",
]


_LONGEST_WAIT_S = 1.0
_OF_GROUPS = (EventType.AGENT_JOINED_GROUP, EventType.AGENT_LEFT_GROUP)


@dataclass(frozen=True)
class SeenEvent:
    """An event, and the groups that its agent is in when it is read."""

    view: EventView
    groups: frozenset[str]


@dataclass(frozen=True)
class EventScope:
    """Which events someone gets: those that a filter leaves, of agents in one of the groups, and of no
    other group, unless these are None.
    """

    which: EventFilter
    groups: frozenset[str] | None = None

    def includes(self, event: SeenEvent) -> bool:
        """Whether an event is one of them."""
        which, view = self.which, event.view
        return (
            which.type in (None, view.type)
            and which.agent in (None, view.agent)
            and which.command in (None, view.command_id)
            and which.operation in (None, view.operation_id)
            and (self.groups is None or not self.groups.isdisjoint(event.groups))
            and (self.groups is None or view.group is None or view.group in self.groups)
        )


@dataclass(frozen=True)
class EventSpan:
    """Which events to read: those in a scope after the position `start`, up to `end`, or without an end for None."""

    scope: EventScope
    start: int
    end: int | None


def span_of(ledger: Ledger, scope: EventScope, after: int | None, since: datetime | None, *, follow: bool) -> EventSpan:
    """Return the span after an event, or from the first one since a time on; it has no end to `follow`.

    Without either it begins at the end, to `follow`, or else with all that are kept. Raises EventsPruned, and
    InvalidArgument for both.
    """
    if after is not None and since is not None:
        raise InvalidArgument("Give the event to read on from, or a time, but not both.", code="ambiguous_start")
    now = ledger.events.end()
    start = now if follow else 0
    if after is not None:
        ledger.events.require(after)
        start = after
    elif since is not None:
        start = ledger.events.before(since)
    return EventSpan(scope, start, None if follow else now)


def events_after(ledger: Ledger, position: int) -> tuple[list[SeenEvent], int]:
    """Return the next events after a position, and the position after them. Raises EventsPruned."""
    page = ledger.events.after(position)
    groups = ledger.groups.of_agents({it.agent for it in page.events}) if page.events else {}
    nowhere: frozenset[str] = frozenset()
    return [SeenEvent(_view_of(it), groups.get(it.agent, nowhere)) for it in page.events], page.position


def each_event(ledger: Ledger, span: EventSpan) -> Iterator[EventView]:
    """Yield the events of a span as they happen. Raises EventsPruned."""
    position = span.start
    with ledger.database.changes() as changes:
        while span.end is None or position < span.end:
            events, end = events_after(ledger, position)
            yield from (event.view for event in events if span.scope.includes(event))
            if end == position:
                changes.wait(_LONGEST_WAIT_S)
            position = end


def _view_of(event: StoredEvent) -> EventView:
    is_end = event.type is EventType.COMMAND_COMPLETED
    outcome = (Outcome.SUCCESS if event.more == Outcome.SUCCESS else Outcome.ERROR) if is_end else None
    code = ErrorCode(event.more) if outcome is Outcome.ERROR and event.more in set(ErrorCode) else None
    changed = tuple((event.more or "").split(",")) if event.type is EventType.AGENT_CHANGED else ()
    return EventView(
        id=event.id,
        at=event.at,
        type=event.type,
        agent=event.agent,
        command_id=event.command_id,
        command_type=event.command_type,
        operation_id=event.operation_id,
        outcome=outcome,
        code=code,
        changed=changed,
        group=event.more if event.type in _OF_GROUPS else None,
    )
