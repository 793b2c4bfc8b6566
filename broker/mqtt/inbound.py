"""A received message whose topic was taken apart: the form in which both sides pass messages on."""

from dataclasses import dataclass

from broker.contract.topics import Channel, Topics
from broker.mqtt.delivery import Delivery

__all__ = ["Inbound", "addressed"]


@dataclass(frozen=True, slots=True)
class Inbound:
    """A message on one agent's channel. `delivery` is the MQTT message to acknowledge once it is dealt with."""

    agent: str
    channel: Channel
    delivery: Delivery

    @property
    def payload(self) -> bytes:
        """The message's bytes, as they came."""
        return self.delivery.payload

    @property
    def retained(self) -> bool:
        """True if the broker kept the message from before the subscription (MQTT 5 section 3.3.1.3)."""
        return self.delivery.retained


def addressed(delivery: Delivery, topics: Topics) -> Inbound | None:
    """Return the delivery with its agent and channel, or None if its topic is outside the scheme."""
    place = topics.parse(delivery.topic)
    return Inbound(*place, delivery) if place else None
