"""Spans that a test looks at."""

from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler

from broker.tracing.otel import OtelTracer

__all__ = ["CALLER", "CALLER_SPAN", "CALLER_TRACE", "KeptSpans", "chain_of"]

CALLER_TRACE, CALLER_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"


class KeptSpans:
    """Tracers of several programs, whose spans are kept in memory."""

    def __init__(self) -> None:
        self._exporters: list[InMemorySpanExporter] = []

    def tracer(self, service: str = "test", sampler: Sampler | None = None) -> OtelTracer:
        exporter = InMemorySpanExporter()
        self._exporters.append(exporter)
        named = Resource({"service.name": service})
        provider = TracerProvider(sampler or ParentBased(ALWAYS_ON), named, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return OtelTracer(provider, "1")

    @property
    def spans(self) -> list[dict[str, Any]]:
        """The spans that have ended, in the order of their begin."""
        found = [_plain(span) for exporter in self._exporters for span in exporter.get_finished_spans()]
        return sorted(found, key=lambda it: it["start"])

    def named(self, name: str) -> dict[str, Any]:
        (found,) = (span for span in self.spans if span["name"] == name)
        return found


def _plain(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "service": span.resource.attributes["service.name"],
        "trace": f"{span.context.trace_id:032x}",
        "id": f"{span.context.span_id:016x}",
        "parent": f"{span.parent.span_id:016x}" if span.parent else None,
        "attributes": dict(span.attributes),
        "is_error": span.status.status_code.name == "ERROR",
        "start": span.start_time,
        "end": span.end_time,
    }


def chain_of(spans: Iterable[dict[str, Any]], last: str) -> list[tuple[str, str]]:
    """Return service and name of the span with this name and of all that have caused it, the first cause first."""
    spans = list(spans)
    by_id = {span["id"]: span for span in spans}
    (span,) = (it for it in spans if it["name"] == last)
    chain = []
    while span is not None:
        chain.insert(0, (span["service"], span["name"]))
        span = by_id.get(span["parent"])
    return chain
