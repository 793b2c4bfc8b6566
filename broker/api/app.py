"""The API as an ASGI application."""

from collections.abc import AsyncIterator, Callable, Container, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from time import monotonic
from typing import Any

import structlog
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from broker.access.access_tokens import AccessTokenStore
from broker.access.answers import AnswerStore
from broker.access.audit_log import AuditLog
from broker.access.authentication import Authentication, ForeignTokens
from broker.access.foreign_log_in import ForeignLogIn
from broker.access.operator_certificates import OperatorCertificateStore
from broker.access.sessions import SessionStore
from broker.api.access import Access
from broker.api.audits import Audits
from broker.api.changes import Requests
from broker.api.checkup import Checkup
from broker.api.counting import api_counts, route_of
from broker.api.documented import Shapes
from broker.api.enrolling import Enrolling
from broker.api.event_feed import EventFeed
from broker.api.event_stream import EventStreams
from broker.api.installation import ApiInstallation
from broker.api.lists import refuse_unclear
from broker.api.parts import ApiParts
from broker.api.problems import problem_response, refusal_of
from broker.api.pulse import Pulse
from broker.api.rate_limit import DEFAULT_RATE, Rate, RateLimit
from broker.api.routes.access_tokens import access_tokens_router
from broker.api.routes.agents import agents_router
from broker.api.routes.audits import audits_router
from broker.api.routes.blobs import blobs_router
from broker.api.routes.commands import commands_router
from broker.api.routes.enrolment_tokens import enrolment_tokens_router
from broker.api.routes.enrolments import enrolments_router
from broker.api.routes.events import events_router
from broker.api.routes.health import health_router
from broker.api.routes.keys import keys_router
from broker.api.routes.metrics import metrics_router
from broker.api.routes.operations import operations_router
from broker.api.routes.operator_certificates import operator_certificates_router
from broker.api.routes.principals import principals_router
from broker.api.routes.reports import reports_router
from broker.api.routes.search import search_router
from broker.enrolment.ledger_metrics import of_ledger
from broker.errors import BrokerError
from broker.ledger.ledger import Ledger
from broker.ledger.readiness import LedgerReadiness
from broker.metrics.exposition import Exposition
from broker.metrics.requests import CountedRequests
from broker.metrics.values import Source
from broker.tracing.port import Tracer
from broker.tracing.requests import TracedRequests

__all__ = [
    "api_app",
]


_log = structlog.get_logger("acm.api")
_REFUSALS = Rate(burst=20, per_second=1.0)
_DESCRIPTION = (
    "Send commands to a fleet of agents, and know the outcome of each. Every failure is a problem (RFC 9457) with a "
    "stable `code`. docs/api.md describes roles, pages, idempotency and problems."
)


def api_app(
    ledger: Ledger,
    installation: ApiInstallation,
    *,
    now: Callable[[], datetime],
    listed: Container[int] = frozenset(),
    foreign: ForeignTokens | None = None,
    log_in: ForeignLogIn | None = None,
    rate: Rate = DEFAULT_RATE,
    monotonic: Callable[[], float] = monotonic,
    metrics: Sequence[Source] = (),
    page: Callable[..., ASGIApp] | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """Return the API of a ledger, which its opener closes, and its installation.

    `listed` are the serial numbers on the authority's revocation list; `foreign` are the tokens that are taken beside
    access tokens, and `log_in` is where people log in to the page besides; `rate` is the limit of each principal.
    `metrics` are those of the process, beside what is in the ledger and what the API counts. `page` is a middleware
    that gets the API and, as `parts`, its ApiParts: it answers what is not the API's. `tracer` makes the spans of
    requests, and of the commands that they create.
    """
    database = ledger.database
    audit_log = AuditLog(database, now=now)
    requests = Requests(ledger, AnswerStore(database, now=now), audit_log, tracer)
    rates = RateLimit(rate, monotonic), RateLimit(_REFUSALS, monotonic)
    tokens = AccessTokenStore(database, now=now)
    certificates = OperatorCertificateStore(database, now=now, listed=listed)
    sessions = SessionStore(database, now=now)
    access = Access(Authentication(tokens, certificates, sessions, foreign), *rates)
    audits = Audits(ledger, requests)
    checkup = Checkup(installation, now=now, monotonic=monotonic)
    enrolling = Enrolling(database, installation, now=now)
    counts = api_counts(monotonic)
    exposition = Exposition([*metrics, of_ledger(database, now, monotonic), counts.families])
    pulse, shapes = Pulse(database.changes), Shapes()
    streams = EventStreams(EventFeed(ledger, pulse), access.valid_among)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pulse.running(), streams.running():
            yield

    def end_waits() -> None:
        pulse.end()
        streams.end()
        audits.end()

    app = FastAPI(
        title="Agent command manager",
        version=version("agent-command-manager"),
        description=_DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,  # their pages load scripts from the network
        redoc_url=None,
        dependencies=[Depends(refuse_unclear)],
        lifespan=lifespan,
        exception_handlers={
            BrokerError: _on_error,
            RequestValidationError: _on_invalid,
            HTTPException: _on_http_error,
            Exception: _on_fault,
        },
        generate_unique_id_function=lambda route: f"{route.tags[0]}_{route.name}",
    )
    app.include_router(commands_router(requests, access, shapes, pulse))
    app.include_router(operations_router(requests, access, shapes, pulse))
    app.include_router(agents_router(requests, access, shapes))
    app.include_router(reports_router(requests, checkup, access, shapes))
    app.include_router(audits_router(requests, audits, access, shapes))
    app.include_router(blobs_router(requests, ledger.blobs, access, shapes))
    app.include_router(enrolment_tokens_router(requests, enrolling, access, shapes))
    app.include_router(enrolments_router(requests, enrolling, access, shapes))
    app.include_router(keys_router(ledger, installation, access, shapes, now=now))
    app.include_router(access_tokens_router(requests, tokens, access, shapes))
    app.include_router(operator_certificates_router(requests, certificates, access, shapes))
    app.include_router(events_router(requests, access, shapes, streams))
    app.include_router(search_router(requests, access, shapes))
    app.include_router(principals_router(audit_log, access, shapes))
    readiness = LedgerReadiness(database, with_server=True, monotonic=monotonic)
    app.include_router(health_router(readiness, shapes))
    app.include_router(metrics_router(exposition, access))
    if page is not None:
        parts = ApiParts(ledger, installation, requests, access, sessions, audit_log, enrolling, streams, now, log_in)
        app.add_middleware(page, parts=parts)
    if tracer is not None:
        app.add_middleware(TracedRequests, tracer=tracer, route_of=route_of)
    app.add_middleware(CountedRequests, counts=counts)  # the last one is the first that a request meets
    app.state.end_waits = end_waits
    _complete_document(app, shapes)
    return app


def _complete_document(app: FastAPI, shapes: Shapes) -> None:
    """Give the OpenAPI document the schemas of our shapes; FastAPI knows only those of pydantic."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        document.setdefault("components", {})["schemas"] = shapes.components()
        for path in document["paths"].values():
            for operation in path.values():
                answers = operation["responses"]
                if "application/json" in answers.get("422", {}).get("content", {}):
                    del answers["422"]  # FastAPI's own, which are problems here
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerError)
    refusal = refusal_of(error)
    response = problem_response(refusal.status, error.code, refusal.detail, refusal.headers, kind=refusal.kind)
    _log.warning(
        "request_refused",
        status=int(refusal.status),
        code=error.code,
        method=request.method,
        path=request.url.path,
        address=request.client.host if request.client else "",
        reason=str(error),
    )
    if refusal.status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Refuse what FastAPI has found in a path, a query or a header."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(str(part) for part in first["loc"])
    return problem_response(HTTPStatus.BAD_REQUEST, "invalid_request", f"{where}: {first['msg']}.")


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    routing = {HTTPStatus.NOT_FOUND: "no_such_route", HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed"}
    status = HTTPStatus(error.status_code)
    detail = "/v1/openapi.json describes all routes." if status in routing else str(error.detail)
    codes = {**routing, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "no_such_range"}
    return problem_response(status, codes.get(status, "invalid_request"), detail, error.headers)


async def _on_fault(request: Request, error: Exception) -> Response:
    _log.error("request_failed", method=request.method, path=request.url.path, exc_info=error)
    return problem_response(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "The API failed; its log has the reason."
    )
