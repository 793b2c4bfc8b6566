"""The spans of the agent: of a command that arrives, of its run, and of the result that is sent.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ has their names, kinds and attributes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from time import time

import msgspec

from broker.contract.messages import Feedback
from broker.contract.topics import Channel, Topics
from broker.contract.trace_context import TraceContext
from broker.tracing.messaging import messaging_attributes
from broker.tracing.port import Span, SpanKind, Tracer
from consumer.engine.watch import AgentWatch
from consumer.ports import Clock, StoredCommand

__all__ = [
    "AgentTraces",
    "TracedResult",
]


class TracedResult(msgspec.Struct, frozen=True):
    """A result to send in a message of its own; `trace` is the context of its command's run, or else of its command."""

    command_id: str
    command_type: str
    encoded: bytes
    trace: TraceContext
    is_first: bool


class AgentTraces(AgentWatch):
    """Makes the spans of commands that are part of a trace; the others cost nothing.

    Commands are dated by `clock`, the spans by the machine's own.
    """

    def __init__(self, tracer: Tracer, agent: str, topics: Topics, clock: Clock) -> None:
        self._tracer, self._agent, self._topics, self._clock = tracer, agent, topics, clock

    def stored(self, commands: Sequence[StoredCommand]) -> None:
        """Make the spans of commands that have arrived, from then on until now."""
        for stored in commands:
            trace = TraceContext.of_text(stored.trace)
            if trace is not None:
                took_s = max(0.0, (self._clock.now() - stored.received_at).total_seconds())
                known = self._known("receive", Channel.COMMAND, stored.command.type, stored.command.id)
                name = f"receive {stored.command.type}"
                self._tracer.begin(name, SpanKind.CLIENT, trace, known, at=time() - took_s).end()

    def running(self, stored: StoredCommand) -> Span | None:
        """Begin the span of a command's run; None if the command is part of no trace."""
        trace = TraceContext.of_text(stored.trace)
        if trace is None:
            return None
        command = stored.command
        known = self._known("process", Channel.COMMAND, command.type, command.id)
        return self._tracer.begin(f"process {command.type}", SpanKind.CONSUMER, trace, known)

    def using(self, span: Span) -> AbstractContextManager[None]:
        """Make a span the current one for a block, so that what a handler calls may continue it."""
        return self._tracer.using(span)

    @staticmethod
    def ended(span: Span, result: Feedback | None) -> None:
        """End the span of a run, which had this result; None: it has requested a new process."""
        if result is None:
            span.end({"acm.outcome": "new_process"})
        else:
            span.end({"acm.outcome": str(result.outcome)}, result.code and str(result.code))

    def sending(self, result: TracedResult, send: Callable[[TraceContext], None]) -> None:
        """Send a result, with the context for its receiver. Only the first time is a span: others follow for days."""
        if not result.is_first:
            send(result.trace)
            return
        known = self._known("send", Channel.FEEDBACK, result.command_type, result.command_id)
        span = self._tracer.begin("send result", SpanKind.PRODUCER, result.trace, known)
        try:
            send(span.context or result.trace)
        finally:
            span.end()

    def _known(self, operation: str, channel: Channel, command_type: str, command_id: str) -> dict[str, str | int]:
        known = messaging_attributes(operation, self._topics, self._agent, channel, command_type)
        return known | {"messaging.message.id": command_id}
