"""What programs need of a tracer; without one, nothing is traced."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Literal, Protocol

from broker.contract.trace_context import TraceContext

__all__ = [
    "Attributes",
    "Span",
    "SpanKind",
    "Tracer",
    "Traces",
]


Traces = Literal["off", "otlp"]
"""Whether a program exports traces: not at all, or as OTLP over HTTP."""
Attributes = Mapping[str, str | int | float | bool]


class SpanKind(StrEnum):
    """The part that a program has in a span (https://opentelemetry.io/docs/specs/otel/trace/api/#spankind)."""

    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """A span that has begun. Any thread may end it; only the first end counts."""

    @property
    def context(self) -> TraceContext | None:
        """The context for what it causes; None if it is not recorded."""

    def end(self, attributes: Attributes | None = None, error: str | None = None, *, at: float | None = None) -> None:
        """End it, now or at a time (seconds since 1970), with more attributes. `error` is the code of a failure."""

    def rename(self, name: str) -> None:
        """Give it another name."""


class Tracer(Protocol):
    """Begins spans and exports them. Its methods may be called by any thread, never block, and never raise."""

    def begin(
        self,
        name: str,
        kind: SpanKind,
        parent: TraceContext | None,
        attributes: Attributes | None = None,
        *,
        at: float | None = None,
    ) -> Span:
        """Begin a span, now or at a time (seconds since 1970), caused by `parent`; None: by the current span, if any.

        A span that nothing has caused begins a trace.
        """

    def using(self, span: Span) -> AbstractContextManager[None]:
        """Make a span the current one for a block, in this thread and what it awaits."""

    def close(self) -> None:
        """Export what has ended, within a few seconds. Spans that end later are lost."""
