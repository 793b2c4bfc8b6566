"""Sending again what has ended: what would be sent is shown before, and is sent once."""

import hashlib
from http import HTTPStatus
from uuid import uuid4

import msgspec
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.api.changes import Wanted
from broker.fleet.models import Role
from broker.fleet.retrying import Again
from broker.page.routing import Pages, Visit

__all__ = [
    "retry_routes",
]


_SHOWN_AGENTS = 100
_KINDS = ("commands", "operations")


def retry_routes(pages: Pages) -> list[Route]:
    """Return the routes of retrying commands and operations."""
    paths = [f"/{kind}/{{id}}/retry" for kind in _KINDS]
    return [
        *(pages.shown(path, _ask, Role.OPERATOR) for path in paths),
        *(pages.sent(path, _retry, Role.OPERATOR) for path in paths),
    ]


def _ask(visit: Visit) -> Response:
    return _confirm(visit, _again(visit), str(uuid4()))


def _retry(visit: Visit) -> Response:
    """Send it, if it is still for the agents that were shown; a repeat with the same key sends nothing."""
    retried, key = visit.request.path_params["id"], visit.form.get("key", "")[:255]
    wanted = _again(visit)
    if not key or _digest(wanted) != visit.form.get("agents_digest"):
        return _confirm(visit, wanted, key or str(uuid4()), has_changed=True)
    change = Wanted(visit.request, visit.who, key, "retry", retried)
    answer = visit.parts.requests.change(
        change,
        lambda fleet: fleet.retry_operation(retried) if _is_operation(visit) else fleet.retry(retried),
        HTTPStatus.CREATED,
    )
    sent = msgspec.json.decode(answer.body)
    path = f"/commands/{sent['command']['id']}" if sent["command"] else f"/operations/{sent['operation']['id']}"
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def _again(visit: Visit) -> Again:
    retried = visit.request.path_params["id"]
    return visit.fleet.operation_again(retried) if _is_operation(visit) else visit.fleet.again(retried)


def _is_operation(visit: Visit) -> bool:
    return visit.request.url.path.startswith("/operations/")


def _confirm(visit: Visit, wanted: Again, key: str, *, has_changed: bool = False) -> Response:
    facts = {"key": key, "digest": _digest(wanted), "has_changed": has_changed, "shown": _SHOWN_AGENTS}
    back = visit.request.url.path.removesuffix("/retry")
    return visit.page("retry.html", wanted=wanted.request, agents=wanted.target.agents, back=back, **facts)


def _digest(wanted: Again) -> str:
    """Return what tells the agents of two lists apart."""
    return hashlib.sha256("\n".join(wanted.target.agents).encode()).hexdigest()
