"""What is counted of the API's requests."""

from collections.abc import Callable

from starlette.types import Scope

from broker.metrics.requests import RequestCounts
from broker.metrics.values import Kind, Metric

__all__ = [
    "api_counts",
    "route_of",
]


_NO_ROUTE = "none"

REQUESTS = Metric(
    "acm_api_requests_total",
    Kind.COUNTER,
    "Requests to the API and its page that were answered, by method, route and status.",
    ("method", "route", "status"),
)
SECONDS = Metric(
    "acm_api_request_seconds",
    Kind.HISTOGRAM,
    "Time until the answer to a request began; those that wait for something, as they ask, are among them.",
    ("route",),
)


def api_counts(monotonic: Callable[[], float]) -> RequestCounts:
    """Return what counts the requests of an API."""
    return RequestCounts(REQUESTS, SECONDS, lambda scope: route_of(scope) or _NO_ROUTE, monotonic)


def route_of(scope: Scope) -> str | None:
    """Return the route of a request that was matched; None without one."""
    return getattr(scope.get("route"), "path", None)
