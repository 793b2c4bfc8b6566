"""/login and /logout: a session begins with an access token, or one of the issuer, and ends."""

from http import HTTPStatus
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.access.grants import Credential, InvalidCredential
from broker.api.parts import ApiParts
from broker.fleet.models import Role
from broker.page.guard import clear_cookie, is_secure, local_path, refuse_foreign, secret_in, set_cookie
from broker.page.routing import Pages, Visit, form_of

__all__ = [
    "begun_session",
    "log_in_page",
    "log_in_routes",
]


def log_in_routes(pages: Pages) -> list[Route]:
    """Return the routes of logging in with a token, and out."""
    parts = pages.parts

    async def show(request: Request) -> Response:
        return log_in_page(pages, request, local_path(request.query_params.get("next", "/")))

    async def log_in(request: Request) -> Response:
        refuse_foreign(request)
        form = await form_of(request)
        target = local_path(form.get("next", "/"))
        try:
            who = await run_in_threadpool(parts.access.authenticated, request, form.get("token", "").strip())
        except InvalidCredential as error:
            return log_in_page(pages, request, target, HTTPStatus.UNAUTHORIZED, problem=str(error))
        secret = await run_in_threadpool(begun_session, parts, request, who)
        response = RedirectResponse(target, HTTPStatus.SEE_OTHER)
        set_cookie(response, secret, secure=is_secure(request))
        return response

    return [
        Route("/login", show, methods=["GET"]),
        Route("/login", log_in, methods=["POST"]),
        pages.sent("/logout", _log_out, Role.VIEWER),
    ]


def log_in_page(
    pages: Pages,
    request: Request,
    target: str,
    status: HTTPStatus = HTTPStatus.OK,
    *,
    problem: str | None = None,
    issuer_problem: str | None = None,
) -> Response:
    """Return the page to log in at, which leads to a path; `problem` is one of the token in the form."""
    issuer = pages.parts.log_in
    address = None if issuer is None else f"{issuer.page_url}/login/issuer?{urlencode({'next': target})}"
    return pages.rendering.page(
        request,
        "log_in.html",
        status,
        target=target,
        problem=problem,
        issuer=issuer and issuer.name,
        address=address,
        issuer_problem=issuer_problem,
    )


def begun_session(parts: ApiParts, request: Request, who: Credential) -> str:
    """Begin a session of a principal in place of the one that the browser has, and return its secret."""
    logged = parts.requests.logged(who, "log in", "page")
    return parts.sessions.begin(who, logged, instead_of=secret_in(request))


def _log_out(visit: Visit) -> Response:
    if visit.who.session is not None:
        visit.parts.sessions.end(visit.who.session)
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    clear_cookie(visit.request, response)
    return response
