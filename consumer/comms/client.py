"""The agent's side of the wire: what it subscribes to, how it sends feedback and publishes its status."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.contract.codec import encode, frames, status_frame
from broker.contract.messages import BlobRequest, Feedback, Status
from broker.contract.topics import Channel, Topics
from broker.mqtt.delivery import Delivery

__all__ = [
    "AgentCommsClient",
    "Connection",
]


class Connection(Protocol):
    """What the agent needs of an MQTT connection."""

    def drain(self, timeout_s: float) -> list[Delivery]:
        """Wait for a message, then take what is there."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Send the PUBACKs."""

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> bool:
        """Publish at QoS 1 without blocking; False means that it was dropped."""


class AgentCommsClient:
    """Speaks for one agent. Received deliveries are taken by `receive_commands` and acknowledged by the caller."""

    def __init__(self, connection: Connection, agent: str, topics: Topics) -> None:
        self.topic: Mapping[Channel, str] = {channel: topics.of(agent, channel) for channel in Channel}
        self._connection = connection

    @staticmethod
    def subscriptions(agent: str, topics: Topics) -> list[str]:
        """Return the topics that an agent's connection must subscribe to."""
        return [
            topics.of(agent, channel) for channel in (Channel.COMMAND, Channel.CONTROL, Channel.ACK, Channel.BLOB_CHUNK)
        ]

    def receive_commands(self, timeout_s: float) -> list[Delivery]:
        """Return what has arrived, waiting at most `timeout_s` for the first."""
        return self._connection.drain(timeout_s)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Send the PUBACKs."""
        self._connection.acknowledge(deliveries)

    def send_feedback(self, feedbacks: Sequence[Feedback]) -> None:
        """Publish feedback in as few frames as the size cap allows."""
        for frame in frames(feedbacks):
            self._connection.publish(self.topic[Channel.FEEDBACK], frame)

    def publish_status(self, status: Status) -> None:
        """Publish the retained status."""
        self._connection.publish(self.topic[Channel.STATUS], status_frame(status), retain=True)

    def request_blob(self, request: BlobRequest) -> None:
        """Ask for a part of a blob; may be called from any thread."""
        self._connection.publish(self.topic[Channel.BLOB_REQUEST], encode([request]))
