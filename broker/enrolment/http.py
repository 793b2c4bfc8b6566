"""The enrolment server's HTTP: routes, what a body may be, and which status each refusal has."""

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
from broker.enrolment.store import EnrolmentRevoked
from broker.enrolment.tokens import TokenRefused, TokenUsed
from broker.errors import BrokerError, LedgerError
from broker.pki.verification import IdentityError

__all__ = [
    "enrolment_app",
]


_MAX_BODY_BYTES = 32768
_SERVED = f"Here are GET {CA_PATH}, POST {ENROLL_PATH} and POST {RENEW_PATH}, and nothing else."
_log = structlog.get_logger("acm.enrolment")
_Asked = TypeVar("_Asked", EnrollRequest, RenewRequest)


class _MalformedBody(BrokerError):
    """The body of a request is not the JSON of that request."""

    code = "malformed_body"


# Any other error of ours means that the request could not be read.
_STATUS: Mapping[type[BrokerError], HTTPStatus] = MappingProxyType(
    {
        TokenRefused: HTTPStatus.FORBIDDEN,
        TokenUsed: HTTPStatus.CONFLICT,
        EnrolmentRevoked: HTTPStatus.FORBIDDEN,
        IdentityError: HTTPStatus.FORBIDDEN,
        LedgerError: HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


def enrolment_app(
    service: EnrolmentService, background: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
) -> Starlette:
    """Return the ASGI application. Every response is JSON; one with a status of 400 or more is an ErrorResponse.

    `background` is entered while the application runs, in its event loop.
    """

    async def authority(request: Request) -> Response:
        return _json(HTTPStatus.OK, service.authority())

    return Starlette(
        routes=[
            Route(CA_PATH, authority, methods=["GET"]),
            Route(ENROLL_PATH, _exchange(EnrollRequest, service.enroll), methods=["POST"]),
            Route(RENEW_PATH, _exchange(RenewRequest, service.renew), methods=["POST"]),
        ],
        exception_handlers={
            BrokerError: _refuse,
            HTTPException: _refuse_http,
            ClientDisconnect: _note_end,
            Exception: _fail,
        },
        lifespan=lambda app: background(),
    )


def _exchange(shape: type[_Asked], answer: Callable[[_Asked], EnrollResponse]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        enrolled = await run_in_threadpool(answer, _decode(await _body(request), shape))
        _log.info("certificate_issued", path=request.url.path, agent=enrolled.agent, enrolment=enrolled.enrolment_id)
        return _json(HTTPStatus.OK, enrolled)

    return endpoint


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have at most {_MAX_BODY_BYTES} bytes."
            )
    return body


def _decode(body: bytes, shape: type[_Asked]) -> _Asked:
    known = {field.name for field in fields(shape)}
    try:
        members = msgspec.json.decode(body, type=dict[str, Any])
        asked = msgspec.convert(members, shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _MalformedBody(f"The body is not the JSON of an {shape.__name__}: {error}.") from error
    unknown = sorted(members.keys() - known)
    if unknown:
        raise _MalformedBody(
            f"Unknown member {unknown[0][:80]!r} in the body; allowed are {', '.join(sorted(known))}.",
            code="unknown_member",
        )
    return asked


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, BrokerError)
    status = _STATUS.get(type(error), HTTPStatus.BAD_REQUEST)
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
        message = "The enrolment server cannot look that up now: try again later."
    return _json(status, ErrorResponse(message))


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    nowhere = error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
    response = _json(HTTPStatus(error.status_code), ErrorResponse(_SERVED if nowhere else error.detail))
    response.headers.update(error.headers or {})
    return response


async def _note_end(request: Request, error: Exception) -> Response:
    _log.info("request_broken_off", path=request.url.path, address=_address(request))
    return _json(HTTPStatus.REQUEST_TIMEOUT, ErrorResponse("The request did not come in time."))  # nobody reads it


async def _fail(request: Request, error: Exception) -> Response:
    _log.error("request_failed", path=request.url.path, address=_address(request), exc_info=error)
    return _json(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorResponse("The enrolment server failed; its log says why."))


def _json(status: HTTPStatus, answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
