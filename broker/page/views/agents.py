"""/agents: the list, and one agent."""

from starlette.responses import Response
from starlette.routing import Route

from broker.contract.states import AgentState
from broker.fleet.models import CommandFilter
from broker.ledger.agent_listing import AgentListing, AgentOrder
from broker.page.lists import Numbered, asked_page, chosen
from broker.page.routing import Pages, Visit

__all__ = [
    "agents_routes",
]


_PAGE = 50
_SHOWN_OPEN, _SHOWN_ENDED, _SHOWN_ENROLMENTS = 20, 20, 5


def agents_routes(pages: Pages) -> list[Route]:
    """Return the routes of agents."""
    return [pages.shown("/agents", _agents), pages.shown("/agents/{name}", _agent)]


def _agents(visit: Visit) -> Response:
    has_version = "version" in visit.request.query_params
    which = AgentListing(
        visit.asked("name"),
        chosen(AgentState, visit.asked("state")),
        visit.asked("group") or None,
        visit.asked("version") if has_version else None,
        chosen(AgentOrder, visit.asked("sort")) or AgentOrder.NAME,
        visit.asked("order") == "desc",
    )
    number = asked_page(visit.asked("page"))
    found = visit.listings.agents(which, skip=(number - 1) * _PAGE, limit=_PAGE)
    groups = visit.listings.group_sizes()
    paging = Numbered(visit.request.url, number, _PAGE, found.total)
    return visit.page("agents.html", which=which, agents=found.items, groups=groups, paging=paging, states=AgentState)


def _agent(visit: Visit) -> Response:
    name = visit.request.path_params["name"]
    agent = visit.fleet.agent(name)
    newest = visit.fleet.newest_commands(CommandFilter(agent=name), _SHOWN_OPEN + _SHOWN_ENDED)
    enrolments = visit.parts.enrolling.of(visit.who).enrolments(agent=name, limit=_SHOWN_ENROLMENTS)
    return visit.page(
        "agent.html",
        agent=agent,
        status=agent.status or {},
        queue=[it for it in newest if it.outcome is None][::-1][:_SHOWN_OPEN],
        history=[it for it in newest if it.outcome is not None][:_SHOWN_ENDED],
        enrolments=enrolments.items,
        audit=visit.parts.requests.reports(visit.who).audit_state(name),
    )
