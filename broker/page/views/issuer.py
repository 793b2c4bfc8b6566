"""/login/issuer and /login/callback: the way to the issuer at which people log in, and back."""

from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from broker.access.foreign_log_in import ForeignLogIn
from broker.access.grants import InvalidCredential
from broker.api.problems import STATUS_OF, problem_kind
from broker.errors import BrokerError
from broker.page.guard import clear_log_in, keep_log_in, kept_log_in, local_path, set_cookie
from broker.page.routing import Pages
from broker.page.views.log_in import begun_session, log_in_page

__all__ = [
    "issuer_routes",
]


def issuer_routes(pages: Pages) -> list[Route]:
    """Return the routes of logging in at the issuer; none without one."""
    issuer = pages.parts.log_in
    if issuer is None:
        return []
    way = _Way(pages, issuer)
    return [
        Route("/login/issuer", way.there, methods=["GET"]),
        Route("/login/callback", way.back, methods=["GET"]),
    ]


_log = structlog.get_logger("acm.page")


class _Way:
    """The way to one issuer and back."""

    def __init__(self, pages: Pages, issuer: ForeignLogIn) -> None:
        self._pages = pages
        self._issuer = issuer
        self._is_secure = urlsplit(issuer.page_url).scheme == "https"

    def there(self, request: Request) -> Response:
        target = local_path(request.query_params.get("next", "/"))
        try:
            begun = self._issuer.begin(target)
        except BrokerError as error:
            return self._problem(request, target, error)
        response = RedirectResponse(begun.address, HTTPStatus.SEE_OTHER)
        keep_log_in(response, begun.kept, secure=self._is_secure)
        return response

    def back(self, request: Request) -> Response:
        parts = self._pages.parts
        parts.access.count_attempt(request)
        try:
            found = self._issuer.finish(kept_log_in(request, secure=self._is_secure), request.query_params)
        except BrokerError as error:
            response = self._problem(request, "/", error)
        else:
            # A strict cookie is not sent where another site has led to: so the page loads the target by itself.
            response = self._pages.rendering.page(request, "again.html", target=local_path(found.target))
            set_cookie(response, begun_session(parts, request, found.credential), secure=self._is_secure)
        clear_log_in(response, secure=self._is_secure)
        return response

    def _problem(self, request: Request, target: str, error: BrokerError) -> Response:
        reason = {"code": error.code, "path": request.url.path, "reason": str(error)}
        status = HTTPStatus.UNAUTHORIZED if isinstance(error, InvalidCredential) else STATUS_OF[problem_kind(error)]
        _log.warning("page_refused", status=int(status), **reason)
        return log_in_page(self._pages, request, target, status, issuer_problem=str(error))
