"""Routes of the page: each knows who asks, and whether they may."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.access.grants import Credential, InvalidCredential
from broker.api.bodies import BodyTooLong, pieces_of_body
from broker.api.parts import ApiParts
from broker.fleet.models import Principal, Role
from broker.fleet.on_ledger import LedgerFleet
from broker.fleet.overview_on_ledger import LedgerListings
from broker.page.guard import (
    clear_cookie,
    csrf_token,
    refuse_foreign,
    refuse_without_token,
    secret_in,
)
from broker.page.rendering import Rendering

__all__ = [
    "Form",
    "Pages",
    "Visit",
]


Form = Mapping[str, str]
_MAX_FORM_BYTES = 512 * 1024


@dataclass(frozen=True)
class Visit:
    """A request of someone who is logged in; `form` has what a form has sent, `csrf` what our forms must send."""

    request: Request
    who: Credential
    csrf: str
    form: Form
    parts: ApiParts
    rendering: Rendering

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.who.principal

    @property
    def fleet(self) -> LedgerFleet:
        """The fleet as they see it."""
        return self.parts.requests.fleet(self.who)

    @property
    def listings(self) -> LedgerListings:
        """The lists of agents as they see them."""
        return LedgerListings(self.parts.ledger, self.principal.groups)

    def may(self, role: str, *, everywhere: bool = False) -> bool:
        """Whether they may do what needs this role; `everywhere`: with what is not that of some agents."""
        return self.principal.role.includes(Role(role)) and not (everywhere and self.principal.groups is not None)

    def asked(self, name: str) -> str:
        """Return a parameter of the query, without spaces around it; empty without it."""
        return self.request.query_params.get(name, "").strip()

    def page(self, template: str, **values: Any) -> Response:
        """Return a page, made of a template and values."""
        return self.rendering.page(self.request, template, visit=self, **values)


View = Callable[[Visit], Response]


class Pages:
    """Makes the routes of views."""

    def __init__(self, parts: ApiParts, rendering: Rendering) -> None:
        self.parts = parts
        self.rendering = rendering

    def shown(self, path: str, view: View, role: Role = Role.VIEWER, *, everywhere: bool = False) -> Route:
        """Return the route of a page to look at."""

        def endpoint(request: Request) -> Response:
            visit = self._visit(request, {}, role, everywhere=everywhere)
            return self._to_log_in(request) if visit is None else view(visit)

        return Route(path, endpoint, methods=["GET"])

    def streamed(self, path: str, view: View) -> Route:
        """Return the route of a stream, for scripts: without a session it is refused. Raises InvalidCredential."""

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(answer, request)  # the stream itself belongs to the event loop

        def answer(request: Request) -> Response:
            visit = self._visit(request, {}, Role.VIEWER, everywhere=False)
            if visit is None:
                raise InvalidCredential("The session has ended: log in again.", code="credential_expired")
            return view(visit)

        return Route(path, endpoint, methods=["GET"])

    def sent(self, path: str, view: View, role: Role, *, everywhere: bool = False) -> Route:
        """Return the route of a form, which only a page of the same session can have sent."""

        async def endpoint(request: Request) -> Response:
            refuse_foreign(request)
            form = await form_of(request)
            return await run_in_threadpool(answer, request, form)

        def answer(request: Request, form: Form) -> Response:
            visit = self._visit(request, form, role, everywhere=everywhere)
            if visit is None:
                return RedirectResponse("/login", HTTPStatus.SEE_OTHER)
            refuse_without_token(secret_in(request) or "", form.get("csrf", ""))
            return view(visit)

        return Route(path, endpoint, methods=["POST"])

    def _visit(self, request: Request, form: Form, role: Role, *, everywhere: bool) -> Visit | None:
        """Return the visit of who may do it; None without a session. Raises Forbidden and RateLimited."""
        secret = secret_in(request)
        if secret is None:
            return None
        try:
            who = self.parts.access.of_session(secret)
        except InvalidCredential:
            return None
        visit = Visit(request, who, csrf_token(secret), form, self.parts, self.rendering)
        request.state.visit = visit
        self.parts.access.admit(who, role, everywhere=everywhere)
        return visit

    def _to_log_in(self, request: Request) -> Response:
        """Return the way to the log-in, and back to this page."""
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A strict cookie is not sent for a link of another site; it is when this page loads itself again.
            return self.rendering.page(request, "again.html", target=_target(request))
        response = RedirectResponse(f"/login?{urlencode({'next': _target(request)})}", HTTPStatus.SEE_OTHER)
        clear_cookie(request, response)
        return response


async def form_of(request: Request) -> Form:
    """Return the fields of a form; of those with the same name, the last one. Raises BodyTooLong."""
    body = b""
    async for piece in pieces_of_body(request):
        body += piece
        if len(body) > _MAX_FORM_BYTES:
            raise BodyTooLong(f"A form may have at most {_MAX_FORM_BYTES} bytes.")
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def _target(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
