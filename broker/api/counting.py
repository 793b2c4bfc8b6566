"""Counts the requests of the API, in its event loop."""

from collections.abc import Callable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.metrics.values import Counter, Family, Histogram, Kind, LabelLimit, Metric

__all__ = [
    "CountedRequests",
    "RequestCounts",
]


_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NO_ROUTE = "none"
_MAX_METHODS = 10

REQUESTS = Metric(
    "acm_api_requests_total",
    Kind.COUNTER,
    "Requests to the API that were answered, by method, route and status.",
    ("method", "route", "status"),
)
SECONDS = Metric(
    "acm_api_request_seconds",
    Kind.HISTOGRAM,
    "Time until the answer to a request began; those that wait for something, as they ask, are among them.",
    ("route",),
)


class RequestCounts:
    """The counts of one API. Its event loop counts; another thread may call `families`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self._requests = Counter(REQUESTS)
        self._seconds = Histogram(SECONDS, _BOUNDS)
        self._method = LabelLimit(_MAX_METHODS)

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request whose answer begins."""
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        self._requests.add(self._method(scope["method"]), route, str(status))
        self._seconds.observe(seconds, route)

    def families(self) -> Iterator[Family]:
        """Return all counts up to now."""
        yield self._requests.family()
        yield self._seconds.family()


class CountedRequests:
    """Middleware that counts each request when its answer begins."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._counts.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.add(scope, message["status"], self._counts.monotonic() - began)
            await send(message)

        await self._app(scope, receive, counted)
