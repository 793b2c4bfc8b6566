"""/login and /logout: a session begins with an access token, or one of the issuer, and ends."""

from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.access.grants import Credential, InvalidCredential
from broker.api.parts import ApiParts
from broker.fleet.models import Role
from broker.page.guard import clear_cookie, local_path, refuse_foreign, set_cookie
from broker.page.routing import Pages, Visit, form_of

__all__ = [
    "begin_session",
    "log_in_routes",
]


def log_in_routes(pages: Pages) -> list[Route]:
    """Return the routes of logging in and out."""
    parts, rendering = pages.parts, pages.rendering

    async def show(request: Request) -> Response:
        target = local_path(request.query_params.get("next", "/"))
        return rendering.page(request, "log_in.html", target=target, problem=None)

    async def log_in(request: Request) -> Response:
        refuse_foreign(request)
        form = await form_of(request)
        target = local_path(form.get("next", "/"))
        try:
            who = await run_in_threadpool(parts.access.authenticated, request, form.get("token", "").strip())
        except InvalidCredential as error:
            status = HTTPStatus.UNAUTHORIZED
            return rendering.page(request, "log_in.html", status, target=target, problem=str(error))
        return await run_in_threadpool(begin_session, parts, request, who, target)

    return [
        Route("/login", show, methods=["GET"]),
        Route("/login", log_in, methods=["POST"]),
        pages.sent("/logout", _log_out, Role.VIEWER),
    ]


def begin_session(parts: ApiParts, request: Request, who: Credential, target: str) -> Response:
    """Begin a session of a principal, and go to a path of the page."""
    secret = parts.sessions.begin(who, parts.requests.logged(who, "log in", "page"))
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    set_cookie(request, response, secret)
    return response


def _log_out(visit: Visit) -> Response:
    if visit.who.session is not None:
        visit.parts.sessions.end(visit.who.session)
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    clear_cookie(visit.request, response)
    return response
