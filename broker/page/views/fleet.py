"""/: the fleet at a glance."""

from starlette.responses import Response
from starlette.routing import Route

from broker.contract.states import Outcome
from broker.fleet.models import CommandFilter
from broker.page.routing import Pages, Visit

__all__ = [
    "fleet_routes",
]


_SHOWN_ERRORS = 8


def fleet_routes(pages: Pages) -> list[Route]:
    """Return the route of the start page."""
    return [pages.shown("/", _fleet)]


def _fleet(visit: Visit) -> Response:
    overview = visit.listings.overview()
    lately = CommandFilter(outcome=Outcome.ERROR, since=overview.failed_since)
    errors = visit.fleet.newest_commands(lately, _SHOWN_ERRORS) if overview.failed else ()
    summary = visit.parts.requests.reports(visit.who).summary()
    return visit.page("fleet.html", overview=overview, summary=summary, errors=errors, servers=visit.fleet.servers())
