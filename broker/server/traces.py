"""The spans of the server: of a command that it publishes, and of a result that it records.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ has their names, kinds and attributes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from broker.contract.messages import Feedback
from broker.contract.states import FeedbackKind
from broker.contract.topics import Channel, Topics
from broker.contract.trace_context import TraceContext
from broker.ledger.feedback import Completed
from broker.ledger.outbox import DueCommand
from broker.ledger.turns import RecordedTurn, Said
from broker.server.watch import ServerWatch
from broker.tracing.messaging import messaging_attributes
from broker.tracing.port import SpanKind, Tracer

__all__ = [
    "ServerTraces",
]


class ServerTraces(ServerWatch):
    """Makes the spans of commands that are part of a trace; the others cost nothing. `now` is in seconds since 1970."""

    def __init__(self, tracer: Tracer, topics: Topics, now: Callable[[], float]) -> None:
        self._tracer, self._topics, self._now = tracer, topics, now
        self._arrived: dict[tuple[str, str | None], TraceContext] = {}
        self._recording_since = 0.0

    def sending(
        self, agent: str, commands: Sequence[DueCommand]
    ) -> Iterator[tuple[Sequence[DueCommand], TraceContext | None]]:
        """Yield parts of the commands, in order, each with the context to publish it with: a message has one.

        Each is a span until the next one is asked for. What is sent again is not: that may last for days.
        """
        for context, some in groupby(commands, key=attrgetter("trace")):
            part = list(some)
            if context is None or all(it.waited_s is None for it in part):
                yield part, context
            else:
                yield from self._sending_one(agent, part, context)

    def _sending_one(
        self, agent: str, commands: Sequence[DueCommand], context: TraceContext
    ) -> Iterator[tuple[Sequence[DueCommand], TraceContext]]:
        first = commands[0]
        known = messaging_attributes("send", self._topics, agent, Channel.COMMAND, first.type or "")
        known |= _named([it.id for it in commands])
        span = self._tracer.begin(f"send {first.type}", SpanKind.PRODUCER, context, known)
        try:
            yield commands, span.context or context
        finally:
            span.end()

    def arrived(self, agent: str, said: Sequence[Said], trace: TraceContext) -> None:
        """Note the context of a message with results, if it is recorded."""
        for it in said if trace.is_sampled else ():
            if isinstance(it, Feedback) and it.kind is FeedbackKind.RESULT:
                self._arrived[agent, it.command_id] = trace

    def recording(self) -> None:
        """Note when a turn begins to record."""
        self._recording_since = self._now()

    def recorded(self, said: Mapping[str, Sequence[Said]], turn: RecordedTurn) -> None:
        """Make the spans of the results that were recorded and acknowledged."""
        for agent, recorded in turn.feedback:
            for completed in recorded.completed:
                if completed.trace is not None:
                    self._note_completed(agent, completed)

    def _note_completed(self, agent: str, completed: Completed) -> None:
        result, own = completed.result, TraceContext.of_text(completed.trace)
        said = self._arrived.pop((agent, result.command_id), None)
        # An agent may continue the trace of its command alone.
        parent = said if own is not None and said is not None and said.trace_id == own.trace_id else own
        if parent is None:
            return
        known = messaging_attributes("process", self._topics, agent, Channel.FEEDBACK, completed.type or "")
        known |= {"acm.outcome": str(result.outcome), **_named([result.command_id or ""])}
        if result.code is not None:
            known["acm.code"] = str(result.code)
        self._tracer.begin("process result", SpanKind.CONSUMER, parent, known, at=self._recording_since).end()

    def turn_ended(self, seconds: float, *, failed: bool) -> None:
        """Forget what has arrived: after a failure it is received again."""
        self._arrived.clear()


def _named(ids: Sequence[str]) -> dict[str, str | int]:
    return {"messaging.message.id": ids[0]} if len(ids) == 1 else {"messaging.batch.message_count": len(ids)}
