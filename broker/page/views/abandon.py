"""Abandoning what is open: what that means is shown before."""

from http import HTTPStatus
from uuid import uuid4

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.api.changes import Wanted
from broker.fleet.models import Role
from broker.ledger.commands import AlreadyCompleted
from broker.page.routing import Pages, Visit

__all__ = [
    "abandon_routes",
]


def abandon_routes(pages: Pages) -> list[Route]:
    """Return the routes of abandoning commands and operations."""
    return [
        pages.shown("/commands/{id}/abandon", _ask_for_command, Role.OPERATOR),
        pages.sent("/commands/{id}/abandon", _abandon_command, Role.OPERATOR),
        pages.shown("/operations/{id}/abandon", _ask_for_operation, Role.OPERATOR),
        pages.sent("/operations/{id}/abandon", _abandon_operation, Role.OPERATOR),
    ]


def _ask_for_command(visit: Visit) -> Response:
    command = visit.fleet.command(visit.request.path_params["id"])
    if command.outcome is not None:
        raise AlreadyCompleted(f"The command {command.id} has ended: there is nothing to abandon.")
    return _ask(visit, command.type, command.agent, 1)


def _ask_for_operation(visit: Visit) -> Response:
    progress = visit.fleet.operation(visit.request.path_params["id"])
    unwritten = progress.counts.get("unwritten", 0)
    count = sum(progress.counts.values()) - progress.completed - unwritten
    return _ask(visit, progress.operation.type, progress.operation.target, count)


def _ask(visit: Visit, command_type: str, target: str, count: int) -> Response:
    back = visit.request.url.path.removesuffix("/abandon")
    return visit.page("abandon.html", type=command_type, target=target, count=count, back=back, key=str(uuid4()))


def _abandon_command(visit: Visit) -> Response:
    command_id = visit.request.path_params["id"]
    visit.parts.requests.change(_wanted(visit, command_id), lambda fleet: fleet.abandon(command_id))
    return RedirectResponse(visit.request.url.path.removesuffix("/abandon"), HTTPStatus.SEE_OTHER)


def _abandon_operation(visit: Visit) -> Response:
    operation_id = visit.request.path_params["id"]
    visit.parts.requests.change(_wanted(visit, operation_id), lambda fleet: fleet.abandon_operation(operation_id))
    return RedirectResponse(visit.request.url.path.removesuffix("/abandon"), HTTPStatus.SEE_OTHER)


def _wanted(visit: Visit, target: str) -> Wanted:
    """Return the change: with the key of the form, a repeat changes nothing, and is not refused."""
    return Wanted(visit.request, visit.who, visit.form.get("key", "")[:255] or None, "abandon", target)
