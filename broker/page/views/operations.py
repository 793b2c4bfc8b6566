"""/operations: the list, and one operation with its progress; what is cancelled there, and of commands."""

from http import HTTPStatus

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.api.changes import Wanted
from broker.fleet.models import CommandFilter, Role
from broker.page.lists import address_with
from broker.page.routing import Pages, Visit
from broker.page.views.commands import some_commands

__all__ = [
    "operations_routes",
]


_PAGE = 50


def operations_routes(pages: Pages) -> list[Route]:
    """Return the routes of operations, and of cancelling."""
    return [
        pages.shown("/operations", _operations),
        pages.shown("/operations/{id}", _operation),
        pages.sent("/operations/{id}/cancel", _cancel_operation, Role.OPERATOR),
        pages.sent("/commands/{id}/cancel", _cancel_command, Role.OPERATOR),
    ]


def _operations(visit: Visit) -> Response:
    page = visit.fleet.operations(cursor=visit.asked("cursor") or None, limit=_PAGE)
    progresses = [visit.fleet.operation(it.id) for it in page.items]
    following = page.next and address_with(visit.request.url, cursor=page.next)
    is_first = not visit.asked("cursor")
    return visit.page("operations.html", progresses=progresses, following=following, is_first=is_first)


def _operation(visit: Visit) -> Response:
    operation_id = visit.request.path_params["id"]
    progress = visit.fleet.operation(operation_id)
    commands, following = some_commands(visit, CommandFilter(operation=operation_id))
    return visit.page("operation.html", progress=progress, commands=commands, following=following)


def _cancel_operation(visit: Visit) -> Response:
    operation_id = visit.request.path_params["id"]
    change = Wanted(visit.request, visit.who, None, "cancel", operation_id)
    visit.parts.requests.change(change, lambda fleet: fleet.cancel_operation(operation_id))
    return RedirectResponse(f"/operations/{operation_id}", HTTPStatus.SEE_OTHER)


def _cancel_command(visit: Visit) -> Response:
    command_id = visit.request.path_params["id"]
    change = Wanted(visit.request, visit.who, None, "cancel", command_id)
    visit.parts.requests.change(change, lambda fleet: fleet.cancel(command_id))
    return RedirectResponse(f"/commands/{command_id}", HTTPStatus.SEE_OTHER)
