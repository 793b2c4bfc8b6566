"""/keys: the keys that sign messages to agents, and who has confirmed them."""

from http import HTTPStatus

from starlette.responses import Response
from starlette.routing import Route

from broker.api.installation import NotAvailableHere
from broker.fleet.keys_on_ledger import LedgerSigningKeys
from broker.fleet.models import Role
from broker.page.routing import Pages, Visit

__all__ = [
    "keys_routes",
]


_SHOWN_AGENTS = 50


def keys_routes(pages: Pages) -> list[Route]:
    """Return the route of the signing keys."""
    return [pages.shown("/keys", _keys, Role.ADMIN, everywhere=True)]


def _keys(visit: Visit) -> Response:
    parts = visit.parts
    try:
        found = LedgerSigningKeys(parts.installation.signing_keys(), parts.ledger, now=parts.now).signing_keys()
    except NotAvailableHere as error:
        return visit.page("keys.html", http_status=HTTPStatus.NOT_IMPLEMENTED, keys=None, problem=str(error), shown=0)
    return visit.page("keys.html", keys=found, problem=None, shown=_SHOWN_AGENTS)
