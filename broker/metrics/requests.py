"""Counts the requests of an HTTP server, in its event loop."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from broker.metrics.values import OTHER, Counter, Family, Histogram, Metric

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "CountedRequests",
    "RequestCounts",
]


_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})  # a client may send any other word


class RequestCounts:
    """Counts requests, by method, route and status, and their time, by route. `route_of` names one of few routes.

    The event loop of the server counts; another thread may call `families`.
    """

    def __init__(
        self, requests: Metric, seconds: Metric, route_of: "Callable[[Scope], str]", monotonic: Callable[[], float]
    ) -> None:
        self.monotonic = monotonic
        self._route_of = route_of
        self._requests = Counter(requests)
        self._seconds = Histogram(seconds, _BOUNDS)

    def add(self, scope: "Scope", status: int, seconds: float) -> None:
        """Count a request whose answer begins."""
        route = self._route_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        self._requests.add(method, route, str(status))
        self._seconds.observe(seconds, route)

    def families(self) -> Iterator[Family]:
        """Return all counts up to now."""
        yield self._requests.family()
        yield self._seconds.family()


class CountedRequests:
    """Middleware that counts each request when its answer begins."""

    def __init__(self, app: "ASGIApp", counts: RequestCounts) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._counts.monotonic()

        async def counted(message: "Message") -> None:
            if message["type"] == "http.response.start":
                self._counts.add(scope, message["status"], self._counts.monotonic() - began)
            await send(message)

        await self._app(scope, receive, counted)
