"""A collector of a test: takes spans as OTLP over HTTP, as a real one does."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.http_server import serving_http

__all__ = ["Collector", "collecting"]

_ERROR = 2


class Collector:
    """`environment` is that of a program which exports to it."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.environment: dict[str, str] = {}

    def take(self, body: bytes) -> None:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(of_resource.resource.attributes)
            self.spans += [_plain(span, resource) for it in of_resource.scope_spans for span in it.spans]

    def of_trace(self, trace_id: str) -> list[dict[str, Any]]:
        return sorted((it for it in self.spans if it["trace"] == trace_id), key=lambda it: it["start"])


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect spans while the block runs."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving_http(Handler) as url:
        collector.environment = {
            "ACM_TRACES": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }
        yield collector


def _values(attributes: Any) -> dict[str, Any]:
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in attributes}


def _plain(span: Any, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": span.name,
        "service": resource["service.name"],
        "instance": resource.get("service.instance.id"),
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex() or None,
        "attributes": _values(span.attributes),
        "is_error": span.status.code == _ERROR,
        "start": span.start_time_unix_nano,
    }
