"""Errors as problems (RFC 9457): the status of each error class, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated

import msgspec
from starlette.responses import Response

from broker.api.rate_limit import RateLimited
from broker.errors import BrokerError, CodedError, LedgerError

__all__ = [
    "STATUS_OF",
    "Forbidden",
    "InvalidRequest",
    "ProblemDetails",
    "RefusedRequest",
    "problem_kind",
    "problem_response",
    "refusal_of",
]


_LATER = "The ledger cannot be used now: try again later. The log of the API has the reason."


class InvalidRequest(BrokerError):
    """A request that no route takes as it is: its body, its query or a header."""

    code = "invalid_request"


class Forbidden(BrokerError):
    """The role of the principal does not allow what is asked for."""

    code = "forbidden"


@dataclass(frozen=True)
class ProblemDetails:
    """Why a request failed."""

    status: Annotated[int, msgspec.Meta(description="The HTTP status.", examples=[404])]
    code: Annotated[
        str, msgspec.Meta(description="The stable name of the problem, for programs.", examples=["no_agent_matches"])
    ]
    kind: Annotated[
        str,
        msgspec.Meta(
            description="The stable name of its class, which the status follows from.", examples=["unknown_agent"]
        ),
    ]
    title: Annotated[str, msgspec.Meta(description="The name of the status.", examples=["Not Found"])]
    detail: Annotated[str, msgspec.Meta(description="One sentence for people: what is wrong, and what to do.")]


# By the codes of the classes, as in broker.cli.exit_codes; the nearest base class that is here decides.
STATUS_OF: Mapping[str, HTTPStatus] = MappingProxyType(
    {
        "invalid_argument": HTTPStatus.BAD_REQUEST,
        "invalid_name": HTTPStatus.BAD_REQUEST,
        "invalid_parameters": HTTPStatus.BAD_REQUEST,
        "decode_error": HTTPStatus.BAD_REQUEST,
        "refused_by_database": HTTPStatus.BAD_REQUEST,
        "invalid_request": HTTPStatus.BAD_REQUEST,
        "body_too_long": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "invalid_credential": HTTPStatus.UNAUTHORIZED,
        "forbidden": HTTPStatus.FORBIDDEN,
        "name_of_another": HTTPStatus.FORBIDDEN,
        "unknown_agent": HTTPStatus.NOT_FOUND,
        "unknown_command": HTTPStatus.NOT_FOUND,
        "unknown_operation": HTTPStatus.NOT_FOUND,
        "unknown_blob": HTTPStatus.NOT_FOUND,
        "unknown_enrolment": HTTPStatus.NOT_FOUND,
        "unknown_token_id": HTTPStatus.NOT_FOUND,
        "unknown_access_token": HTTPStatus.NOT_FOUND,
        "unknown_operator_certificate": HTTPStatus.NOT_FOUND,
        "command_failed": HTTPStatus.FAILED_DEPENDENCY,
        "wait_timeout": HTTPStatus.FAILED_DEPENDENCY,
        "audit_error": HTTPStatus.FAILED_DEPENDENCY,
        "already_completed": HTTPStatus.CONFLICT,
        "in_use": HTTPStatus.CONFLICT,
        "agent_is_online": HTTPStatus.CONFLICT,
        "events_pruned": HTTPStatus.GONE,
        "not_retried": HTTPStatus.CONFLICT,
        "idempotency_key_reused": HTTPStatus.UNPROCESSABLE_ENTITY,
        "rate_limited": HTTPStatus.TOO_MANY_REQUESTS,
        "not_available_here": HTTPStatus.NOT_IMPLEMENTED,
        "too_many_streams": HTTPStatus.SERVICE_UNAVAILABLE,
        "ledger_error": HTTPStatus.SERVICE_UNAVAILABLE,
        "issuer_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
        "broker_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)


def problem_kind(error: CodedError) -> str:
    """Return the code of an error's class, or of its nearest base class, that has a status."""
    codes = (vars(cls).get("code") for cls in type(error).__mro__)
    return next((code for code in codes if code and code in STATUS_OF), "broker_error")


@dataclass(frozen=True)
class RefusedRequest:
    """How a request that an error has ended is answered: the status, its class, a sentence for the caller, headers."""

    status: HTTPStatus
    kind: str
    detail: str
    headers: Mapping[str, str]


def refusal_of(error: BrokerError) -> RefusedRequest:
    """Return how an error is answered. What keeps the ledger from being used is for the log alone."""
    kind = problem_kind(error)
    status = STATUS_OF[kind]
    is_of_ledger = isinstance(error, LedgerError) and status is HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, RateLimited) else {}
    return RefusedRequest(status, kind, _LATER if is_of_ledger else str(error), headers)


def problem_response(
    status: HTTPStatus,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    kind: str | None = None,
) -> Response:
    """Return a response with this problem; one without an error class is a kind of its own."""
    body = msgspec.json.encode(ProblemDetails(int(status), code, kind or code, status.phrase, detail))
    return Response(body, int(status), headers, media_type="application/problem+json")
