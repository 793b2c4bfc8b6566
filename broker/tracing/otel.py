"""Spans of OpenTelemetry; no other module imports it."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from broker.contract.trace_context import TRACEPARENT, TRACESTATE, TraceContext
from broker.system.threads import start_thread
from broker.tracing.port import Attributes, Span, SpanKind

__all__ = [
    "OtelTracer",
    "otlp_provider",
]


_NAME = "agent-command-manager"
_CLOSE_S = 2.0
_KINDS = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
    SpanKind.PRODUCER: trace.SpanKind.PRODUCER,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
}
_NS = 1_000_000_000


def otlp_provider(service: str, instance: str | None, version: str) -> TracerProvider:
    """Return what exports spans as OTLP over HTTP, as the variables OTEL_* of the environment say.

    `service` and `instance` name the program, unless the environment does. Raises ValueError for values that
    OpenTelemetry refuses.
    """
    own: dict[str, str] = {"service.name": service, "service.version": version}
    if instance is not None:
        own["service.instance.id"] = instance
    named = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class OtelTracer:
    """The tracer of a provider, which `close` shuts down."""

    def __init__(self, provider: TracerProvider, version: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(_NAME, version)

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        attributes: Attributes | None = None,
        *,
        at: float | None = None,
    ) -> "OtelSpan":
        """Begin a span, as `Tracer.begin` says."""
        caused_by = None if parent is None else _context_of(parent)
        begun = self._tracer.start_span(name, caused_by, _KINDS[kind], attributes, start_time=_ns(at))
        return OtelSpan(begun)

    @contextmanager
    def using(self, span: Span) -> Iterator[None]:
        """Make a span the current one for a block."""
        assert isinstance(span, OtelSpan)
        token = otel_context.attach(trace.set_span_in_context(span.span))
        try:
            yield
        finally:
            otel_context.detach(token)

    def close(self) -> None:
        """Export what has ended, within two seconds."""
        # The provider itself waits for half a minute for a collector that is away, which would hold up each stop.
        thread = start_thread(self._provider.shutdown, "traces-end")
        if thread is not None:
            thread.join(_CLOSE_S)


class OtelSpan:
    """A span of OpenTelemetry."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        found = span.get_span_context()
        self._context = _own_context(found) if found.is_valid and found.trace_flags.sampled else None

    @property
    def context(self) -> TraceContext | None:
        """The context for what it causes; None if it is not recorded."""
        return self._context

    def end(self, attributes: Attributes | None = None, error: str | None = None, *, at: float | None = None) -> None:
        """End it, unless it has ended."""
        if not self.span.is_recording():
            return
        if attributes:
            self.span.set_attributes(dict(attributes))
        if error is not None:
            self.span.set_attribute("error.type", error)
            self.span.set_status(trace.StatusCode.ERROR)
        self.span.end(_ns(at))

    def rename(self, name: str) -> None:
        """Give it another name."""
        if self.span.is_recording():
            self.span.update_name(name)


def _ns(at: float | None) -> int | None:
    return None if at is None else int(at * _NS)


def _context_of(parent: TraceContext) -> otel_context.Context:
    """Return OpenTelemetry's form of a context that has come from elsewhere."""
    state = trace.TraceState.from_header([parent.tracestate] if parent.tracestate else [])
    flags = trace.TraceFlags(parent.flags)
    found = trace.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags, state)
    return trace.set_span_in_context(trace.NonRecordingSpan(found), otel_context.Context())


def _own_context(found: trace.SpanContext) -> TraceContext | None:
    ids = f"{trace.format_trace_id(found.trace_id)}-{trace.format_span_id(found.span_id)}"
    parent = (TRACEPARENT, f"00-{ids}-{found.trace_flags:02x}")
    return TraceContext.read([parent, (TRACESTATE, found.trace_state.to_header())])
