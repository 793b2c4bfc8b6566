"""/live: the events of the API for scripts of the page, which follow them with the cookie of their session."""

from datetime import UTC, datetime

from starlette.responses import Response
from starlette.routing import Route

from broker.errors import InvalidArgument
from broker.fleet.models import EventFilter
from broker.ledger.event_types import EventType
from broker.page.lists import chosen
from broker.page.routing import Pages, Visit

__all__ = [
    "live_routes",
]


_MOST = 2**53  # of what JavaScript reads as it is


def live_routes(pages: Pages) -> list[Route]:
    """Return the route of events."""
    return [pages.streamed("/live", _live)]


def _live(visit: Visit) -> Response:
    """Follow events from the last one that the browser has, or since the page was made."""
    which = EventFilter(
        chosen(EventType, visit.asked("type")),
        agent=visit.asked("agent") or None,
        command=visit.asked("command") or None,
        operation=visit.asked("operation") or None,
    )
    last = visit.request.headers.get("Last-Event-ID", "")
    after = min(int(last[:20]), _MOST) if last.isascii() and last.isdigit() else None
    since = None if after is not None else _time(visit.asked("since"))
    span = visit.fleet.span_of_events(which, after, since, follow=True)
    return visit.parts.streams.answer(visit.who, span)


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidArgument(f"since: {text[:80]!r} is not a time.") from None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
