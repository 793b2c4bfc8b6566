"""What is counted of the enrolment server's requests."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.contract.enrolment import CA_PATH, ENROLL_PATH, RENEW_PATH
from broker.metrics.requests import RequestCounts
from broker.metrics.values import Kind, Metric

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = [
    "enrolment_counts",
]


_NO_ROUTE = "none"

REQUESTS = Metric(
    "acm_enrolment_requests_total",
    Kind.COUNTER,
    "Requests to the enrolment server that were answered, by method, route and status.",
    ("method", "route", "status"),
)
SECONDS = Metric(
    "acm_enrolment_request_seconds",
    Kind.HISTOGRAM,
    "Time until the answer to a request to the enrolment server began.",
    ("route",),
)


def enrolment_counts(monotonic: Callable[[], float]) -> RequestCounts:
    """Return what counts the requests of an enrolment server."""
    return RequestCounts(REQUESTS, SECONDS, _route_of, monotonic)


def _route_of(scope: "Scope") -> str:
    path: str = scope["path"]
    return path if path in (CA_PATH, ENROLL_PATH, RENEW_PATH) else _NO_ROUTE
