"""The HTTP API of the enrolment server: routes, decoding of bodies, and the status of each error.

docs/protocol.md, "Enrolment". The only module that imports starlette.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import fields
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from broker.contract.enrolment import (
    CA_PATH,
    ENROLL_PATH,
    RENEW_PATH,
    EnrollRequest,
    EnrollResponse,
    ErrorResponse,
    RenewRequest,
)
from broker.enrolment.service import EnrolmentService
from broker.enrolment.store import EnrolmentRevoked, RenewedTooOften
from broker.enrolment.tokens import TokenRefused, TokenUsed
from broker.errors import BrokerError, LedgerError
from broker.metrics.requests import CountedRequests, RequestCounts
from broker.pki.verification import IdentityError
from broker.system.readiness import HEALTHY, ReadinessReport
from broker.system.threads import is_missing_thread

__all__ = [
    "enrolment_app",
]


_LATER = "The enrolment server is temporarily unavailable: try again later."
_MAX_BODY_BYTES = 32768
_ROUTES = f"Routes: GET {CA_PATH}, POST {ENROLL_PATH}, POST {RENEW_PATH}."
_log = structlog.get_logger("acm.enrolment")
_Request = TypeVar("_Request", EnrollRequest, RenewRequest)


class _MalformedBody(BrokerError):
    """The body of a request is not the JSON of that request."""

    code = "malformed_body"


# Every other BrokerError: 400, the request is malformed.
_STATUS: Mapping[type[BrokerError], HTTPStatus] = MappingProxyType(
    {
        TokenRefused: HTTPStatus.FORBIDDEN,
        TokenUsed: HTTPStatus.CONFLICT,
        EnrolmentRevoked: HTTPStatus.FORBIDDEN,
        IdentityError: HTTPStatus.FORBIDDEN,
        RenewedTooOften: HTTPStatus.TOO_MANY_REQUESTS,
        LedgerError: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


def enrolment_app(
    service: EnrolmentService,
    background: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    counts: RequestCounts | None = None,
    *,
    readiness: Callable[[], ReadinessReport] = lambda: ReadinessReport.of(()),
) -> Starlette:
    """Return the ASGI application. Every response is JSON; one with a status of 400 or more is an ErrorResponse.

    `background` is entered while the application runs, in its event loop. `counts` counts the requests.
    `readiness` is the answer to /readyz, whose status is 503 if it is not ready; no credential is needed for it.
    """

    async def authority(request: Request) -> Response:
        return _json(HTTPStatus.OK, service.authority())

    async def healthz(request: Request) -> Response:
        return _json(HTTPStatus.OK, HEALTHY)

    async def readyz(request: Request) -> Response:
        found = await run_in_threadpool(readiness)
        return _json(HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE, found)

    return Starlette(
        routes=[
            Route(CA_PATH, authority, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route(ENROLL_PATH, _exchange(EnrollRequest, service.enroll), methods=["POST"]),
            Route(RENEW_PATH, _exchange(RenewRequest, service.renew), methods=["POST"]),
        ],
        exception_handlers={
            BrokerError: _on_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
        lifespan=lambda app: background(),
        middleware=[] if counts is None else [Middleware(CountedRequests, counts=counts)],
    )


def _exchange(kind: type[_Request], handle: Callable[[_Request], EnrollResponse]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        wanted = _decode(await _body(request), kind)
        try:
            issued = await run_in_threadpool(handle, wanted)
        except RuntimeError as error:
            if not is_missing_thread(error):
                raise
            _log.warning("request_refused", code="no_thread", path=request.url.path, address=_address(request))
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, ErrorResponse(_LATER))
        _log.info("certificate_issued", path=request.url.path, agent=issued.agent, enrolment=issued.enrolment_id)
        return _json(HTTPStatus.OK, issued)

    return endpoint


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have at most {_MAX_BODY_BYTES} bytes."
            )
    return body


def _decode(body: bytes, kind: type[_Request]) -> _Request:
    known = {field.name for field in fields(kind)}
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
        request = msgspec.convert(members, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _MalformedBody(f"The body is not the JSON of an {kind.__name__}: {error}.") from error
    unknown = sorted(members.keys() - known)
    if unknown:
        raise _MalformedBody(
            f"Unknown member {unknown[0][:80]!r} in the body; allowed are {', '.join(sorted(known))}.",
            code="unknown_member",
        )
    return request


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerError)
    status = next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), HTTPStatus.BAD_REQUEST)
    message = str(error)
    _log.warning(
        "request_refused",
        status=int(status),
        code=error.code,
        path=request.url.path,
        address=_address(request),
        reason=message,
    )
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        message = _LATER
    return _json(status, ErrorResponse(message))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    no_route = error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
    response = _json(HTTPStatus(error.status_code), ErrorResponse(_ROUTES if no_route else error.detail))
    response.headers.update(error.headers or {})
    return response


async def _on_disconnect(request: Request, error: Exception) -> Response:
    _log.info("request_aborted", path=request.url.path, address=_address(request))
    return _json(HTTPStatus.REQUEST_TIMEOUT, ErrorResponse("The request was not complete in time."))  # not delivered


async def _on_fault(request: Request, error: Exception) -> Response:
    _log.error("request_failed", path=request.url.path, address=_address(request), exc_info=error)
    return _json(
        HTTPStatus.INTERNAL_SERVER_ERROR, ErrorResponse("The enrolment server failed; its log has the reason.")
    )


def _json(status: HTTPStatus, body: Any) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
