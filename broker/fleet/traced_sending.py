"""The span of commands that are created, whose context is stored with them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from broker.contract.trace_context import TraceContext
from broker.errors import CodedError
from broker.tracing.port import SpanKind, Tracer

__all__ = [
    "CreatedSpan",
    "Creating",
    "traced_by",
    "within",
]


class CreatedSpan:
    """What is known of it: its `context`, None if it is not recorded, and later what was created."""

    def __init__(self, context: TraceContext | None) -> None:
        self.context = context
        self.created: dict[str, str | int] = {}

    def note_command(self, command_id: str) -> None:
        """Note that a command was created."""
        self.created = {"messaging.message.id": command_id}

    def note_operation(self, operation_id: str, size: int) -> None:
        """Note that an operation of so many commands was created."""
        self.created = {"acm.operation.id": operation_id, "messaging.batch.message_count": size}


Creating = Callable[[str], AbstractContextManager[CreatedSpan]]
"""Makes the span of a block that creates commands of this type."""


def within(context: TraceContext | None) -> Creating:
    """Return what makes no span: the commands belong to this context; None: to no trace."""
    return lambda _: nullcontext(CreatedSpan(context))


def traced_by(tracer: Tracer | None) -> Creating:
    """Return what makes a span that the current one has caused; None: no span, and no trace."""
    return within(None) if tracer is None else lambda command_type: _creating(tracer, command_type)


@contextmanager
def _creating(tracer: Tracer, command_type: str) -> Iterator[CreatedSpan]:
    # https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ has its name and attributes.
    known = {
        "messaging.system": "mqtt",
        "messaging.operation.type": "create",
        "messaging.operation.name": "create",
        "acm.command.type": command_type,
    }
    span = tracer.begin(f"create {command_type}", SpanKind.PRODUCER, None, known)
    created = CreatedSpan(span.context)
    try:
        yield created
    except BaseException as error:
        span.end(error=error.code if isinstance(error, CodedError) else type(error).__name__)
        raise
    span.end(created.created)
