"""The agent's side of the wire: its subscriptions, and the messages that it receives and sends."""

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from broker.contract.codec import encode, encode_status, joined_frames
from broker.contract.limits import LIMITS
from broker.contract.messages import BlobRequest, Status
from broker.contract.topics import Channel, Topics
from broker.contract.trace_context import TraceContext
from broker.mqtt.delivery import Delivery
from broker.mqtt.inbound import Inbound, addressed
from broker.system.log_throttle import LogThrottle

__all__ = [
    "AgentCommsClient",
    "Connection",
]


_log = structlog.get_logger(__name__)
_RECEIVED = (Channel.COMMAND, Channel.CONTROL, Channel.ACK, Channel.BLOB_CHUNK)


class Connection(Protocol):
    """The part of an MQTT connection that carries messages."""

    def drain(self, timeout_s: float) -> list[Delivery]:
        """Return what has arrived, waiting at most `timeout_s` for the first message."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Send the PUBACKs."""

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: TraceContext | None = None) -> bool:
        """Publish at QoS 1 without blocking, with a context for the receiver; return False if it was dropped."""

    def max_payload_bytes(self, topic: str) -> int:
        """Return the length of the longest payload that may be published on this topic."""

    def filled_payload_bytes(self, topic: str) -> int:
        """Return how long to make a payload on this topic that can be divided."""


class AgentCommsClient:
    """Sends and receives for one agent. `monotonic` is a clock in seconds."""

    def __init__(self, connection: Connection, agent: str, topics: Topics, monotonic: Callable[[], float]) -> None:
        self._connection = connection
        self._agent = agent
        self._topics = topics
        self._throttle = LogThrottle(monotonic)

    @staticmethod
    def subscriptions(agent: str, topics: Topics) -> list[str]:
        """Return the topics that an agent's connection must subscribe to."""
        return [topics.of(agent, channel) for channel in _RECEIVED]

    def receive(self, timeout_s: float) -> list[Inbound]:
        """Return the messages for this agent that have arrived, waiting at most `timeout_s` seconds for the first.

        The caller acknowledges them. A message on another topic is dropped and acknowledged here, as is an empty one:
        publishing it removes a retained message from the broker (MQTT 5 section 3.3.1.3).
        """
        messages = []
        for delivery in self._connection.drain(timeout_s):
            message = addressed(delivery, self._topics)
            if not delivery.payload:
                self._connection.acknowledge([delivery])
            elif message is not None and message.agent == self._agent and message.channel in _RECEIVED:
                messages.append(message)
            else:
                self._drop(delivery)
        return messages

    def acknowledge(self, messages: Sequence[Inbound]) -> None:
        """Send the PUBACKs, so that these messages are not delivered again."""
        self._connection.acknowledge([message.delivery for message in messages])

    def max_frame_bytes(self, channel: Channel) -> int:
        """Return the length of the longest frame that may be sent on this channel now, from any thread.

        The broker can lower it at each connect, so what was short enough to be stored can be too long to be sent.
        """
        room = self._connection.max_payload_bytes(self._topics.of(self._agent, channel))
        return min(LIMITS[channel].frame_bytes, room)

    def filled_frame_bytes(self, channel: Channel) -> int:
        """Return how long to make a frame of which the rest can follow in another one; otherwise as above."""
        room = self._connection.filled_payload_bytes(self._topics.of(self._agent, channel))
        return min(LIMITS[channel].frame_bytes, room)

    def send_feedback(self, encoded: Sequence[bytes], trace: TraceContext | None = None) -> None:
        """Publish feedback, one JSON object each, in as few frames as fit; never blocks, may be lost.

        Feedback that is longer than `max_frame_bytes` is dropped. `trace` is the context for its receiver.
        """
        for frame in joined_frames(encoded, Channel.FEEDBACK, self.filled_frame_bytes(Channel.FEEDBACK)):
            self._publish(Channel.FEEDBACK, frame, trace=trace)

    def publish_status(self, status: Status) -> None:
        """Publish the retained status, cut to what the broker takes; may be lost."""
        self._publish(Channel.STATUS, encode_status(status, self.filled_frame_bytes(Channel.STATUS)), retain=True)

    def request_blob(self, request: BlobRequest) -> None:
        """Ask for a part of a blob, from any thread; may be lost."""
        self._publish(Channel.BLOB_REQUEST, encode([request]))

    def _publish(
        self, channel: Channel, payload: bytes, *, retain: bool = False, trace: TraceContext | None = None
    ) -> None:
        self._connection.publish(self._topics.of(self._agent, channel), payload, retain, trace)

    def _drop(self, delivery: Delivery) -> None:
        self._throttle.warn(_log, "unknown_topic", topic=delivery.topic[:200])
        self._connection.acknowledge([delivery])
