"""The page as a middleware before the API: it answers its own paths, and leaves all others to the API."""

from http import HTTPStatus
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.api.parts import ApiParts
from broker.api.problems import refusal_of
from broker.errors import BrokerError
from broker.page.assets import Assets
from broker.page.rendering import Rendering
from broker.page.routing import Pages
from broker.page.views.abandon import abandon_routes
from broker.page.views.agents import agents_routes
from broker.page.views.audit_log import audit_log_routes
from broker.page.views.commands import commands_routes
from broker.page.views.enrolments import enrolments_routes
from broker.page.views.fleet import fleet_routes
from broker.page.views.issuer import issuer_routes
from broker.page.views.keys import keys_routes
from broker.page.views.live import live_routes
from broker.page.views.log_in import log_in_routes
from broker.page.views.operations import operations_routes
from broker.page.views.retry import retry_routes
from broker.page.views.send import send_routes

__all__ = [
    "OperatorsPage",
]


_log = structlog.get_logger("acm.page")
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer, with which a form has the origin `null`
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OperatorsPage:
    """Answers requests for the page, and gives all others to the API, `app`."""

    def __init__(self, app: ASGIApp, parts: ApiParts) -> None:
        self._api = app
        assets = Assets()
        self._rendering = Rendering(assets, parts.now)
        pages = Pages(parts, self._rendering)
        routes = [
            assets.route(),
            *log_in_routes(pages),
            *issuer_routes(pages),
            *fleet_routes(pages),
            *agents_routes(pages),
            *commands_routes(pages),
            *live_routes(pages),
            *operations_routes(pages),
            *send_routes(pages),
            *retry_routes(pages),
            *abandon_routes(pages),
            *enrolments_routes(pages),
            *keys_routes(pages),
            *audit_log_routes(pages),
        ]
        self._paths = {_first_of(route.path) for route in routes}
        self._routes: dict[Any, Route] = {route.endpoint: route for route in routes}
        handlers = {BrokerError: self._on_error, HTTPException: self._on_http_error, Exception: self._on_fault}
        self._site = Starlette(routes=routes, exception_handlers=handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or _first_of(scope["path"]) not in self._paths:
            await self._api(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["route"] = self._routes.get(scope.get("endpoint"))  # as FastAPI does, for what counts requests
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._site(scope, receive, send_guarded)

    async def _on_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, BrokerError)
        refusal, reason = refusal_of(error), str(error)
        _log.warning("page_refused", status=int(refusal.status), code=error.code, path=request.url.path, reason=reason)
        return self._rendering.problem(request, refusal.status, refusal.detail, refusal.headers)

    async def _on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        return self._rendering.problem(request, status, "There is nothing at this address.", error.headers)

    async def _on_fault(self, request: Request, error: Exception) -> Response:
        _log.error("page_failed", method=request.method, path=request.url.path, exc_info=error)
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        return self._rendering.problem(request, status, "The page failed; the log of the API has the reason.")


def _first_of(path: str) -> str:
    return path.removeprefix("/").partition("/")[0]
