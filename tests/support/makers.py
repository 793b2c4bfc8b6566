"""Messages for tests, with what does not matter to them filled in."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from broker.contract.codec import decode_feedbacks, encode
from broker.contract.messages import Command, Feedback, Origin, SequenceNumber
from broker.contract.states import FeedbackKind, Outcome
from broker.contract.topics import Channel, Topics
from broker.contract.trace_context import TraceContext
from broker.mqtt.delivery import Delivery
from broker.mqtt.inbound import Inbound, addressed
from consumer.ports import EncodedFeedback
from consumer.settings import AgentConfig

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def config(**members: Any) -> AgentConfig:
    return AgentConfig(**{"agent": "web-01", "broker": "mqtt://127.0.0.1", "state": "/nowhere", **members})


def command(name: str, number: int | None = None, command_type: str = "restart-agent") -> Command:
    sequence = SequenceNumber(7, number) if number else None
    return Command(name, command_type, {}, Origin("n", "m"), NOW, sequence=sequence)


def inbound_on(topic: str, payload: bytes, *, retained: bool = False, trace: TraceContext | None = None) -> Inbound:
    """Return a received message on a topic below `acm`, as both sides pass it on."""
    message = addressed(Delivery(topic, payload, retained, False, 1, 1, trace), Topics())
    assert message is not None, topic
    return message


def result(name: str) -> Feedback:
    return Feedback(
        FeedbackKind.RESULT,
        "web-01",
        "g",
        "i",
        "completed",
        "Done.",
        command_id=name,
        outcome=Outcome.SUCCESS,
        digest="d",
    )


def encoded(feedback: Feedback) -> EncodedFeedback:
    """The result as an agent stores and sends it: with its digest as the last member."""
    body = encode([replace(feedback, digest=None)])
    return EncodedFeedback(feedback, body[:-1] + f',"digest":"{feedback.digest}"}}'.encode())


def stored_result(name: str) -> EncodedFeedback:
    return encoded(result(name))


def decoded(due: Iterable[bytes]) -> list[Feedback]:
    """What an outbox has sent."""
    return [feedback for frame in due for feedback in decode_feedbacks(frame)]


def inbound(
    payload: bytes,
    channel: Channel = Channel.COMMAND,
    *,
    retained: bool = False,
    duplicate: bool = False,
    mid: int = 1,
) -> Inbound:
    """A message to web-01."""
    return Inbound("web-01", channel, Delivery(f"acm/web-01/{channel}", payload, retained, duplicate, mid, 1))
