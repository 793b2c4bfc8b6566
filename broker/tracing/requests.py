"""Spans of the requests of an HTTP server, which continue the trace of their callers.

What they are called, and their attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from broker.contract.trace_context import TraceContext
from broker.tracing.port import Attributes, SpanKind, Tracer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "TracedRequests",
]


_READING = ("GET", "HEAD", "OPTIONS")
_KNOWN = frozenset({*_READING, "DELETE", "PATCH", "POST", "PUT"})  # a caller may send any other word


class TracedRequests:
    """Middleware that makes a span of each request that changes something, or that brings a trace of its caller.

    Other requests are looks at what there is, such as those that a page or a monitor repeats: they begin no trace.
    `route_of` names the route of a request, None without one.
    """

    def __init__(self, app: "ASGIApp", tracer: Tracer, route_of: "Callable[[Scope], str | None]") -> None:
        self._app, self._tracer, self._route_of = app, tracer, route_of

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve a request."""
        parent = _caller_of(scope) if scope["type"] == "http" else None
        if scope["type"] != "http" or (parent is None and scope["method"] in _READING):
            await self._app(scope, receive, send)
            return
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def noted(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        name = scope["method"] if scope["method"] in _KNOWN else "HTTP"
        span = self._tracer.begin(name, SpanKind.SERVER, parent, _asked(scope))
        try:
            with self._tracer.using(span):
                await self._app(scope, receive, noted)
        finally:
            route = self._route_of(scope)
            attributes: dict[str, str | int] = {"http.response.status_code": status}
            if route is not None:
                span.rename(f"{name} {route}")
                attributes["http.route"] = route
            span.end(attributes, str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None)


def _caller_of(scope: "Scope") -> TraceContext | None:
    headers = [(name, value) for name, value in scope["headers"] if name.startswith(b"trace")]
    return TraceContext.read((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _asked(scope: "Scope") -> Attributes:
    """Return what is known at the beginning; not the query, in which a caller may have written anything."""
    return {
        "http.request.method": scope["method"] if scope["method"] in _KNOWN else "_OTHER",
        "url.scheme": scope["scheme"],
        "url.path": scope["path"],
    }
