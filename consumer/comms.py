"""The agent's side of the wire: one MQTT session that outlives connections, feedback, retained status, last will."""

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import replace

from broker.contract.codec import encode, frames
from broker.contract.messages import Feedback, Status
from broker.contract.topics import Channel, Topics
from broker.mqtt import Delivery, MqttConnection

__all__ = ["AgentCommsClient"]


class AgentCommsClient:
    """Connects one agent. Received deliveries are drained by `receive_commands` and acknowledged by the caller."""

    def __init__(self, url: str, agent: str, topics: Topics, offline: Status, on_connected: Callable[[], None]) -> None:
        self.topic = {channel: topics.of(agent, channel) for channel in Channel}
        will = encode([replace(offline, online=False)])
        inbound = (Channel.COMMAND, Channel.CONTROL, Channel.ACK)
        self._connection = MqttConnection(
            url,
            client_id=agent,
            will=(self.topic[Channel.STATUS], will),
            subscriptions=[self.topic[channel] for channel in inbound],
            on_connect=on_connected,
        )

    def get_connection(self) -> MqttConnection:
        """Return the connection, to start, stop, wake or look at it."""
        return self._connection

    def receive_commands(self, timeout_s: float) -> list[Delivery]:
        """Return what has arrived, waiting at most `timeout_s` for the first."""
        return self._connection.drain(timeout_s)

    def send_feedback(self, feedbacks: Listing[Feedback]) -> None:
        """Publish feedback in as few frames as the size cap allows."""
        for frame in frames(feedbacks):
            self._connection.publish(self.topic[Channel.FEEDBACK], frame)

    def publish_status(self, status: Status) -> None:
        """Publish the retained status."""
        self._connection.publish(self.topic[Channel.STATUS], encode([status]), retain=True)
