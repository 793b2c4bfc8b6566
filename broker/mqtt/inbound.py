"""A received message with its topic parsed, as both sides hand messages on."""

import msgspec

from broker.contract.topics import Channel, Topics
from broker.mqtt.delivery import Delivery

__all__ = ["Inbound", "addressed"]


class Inbound(msgspec.Struct, frozen=True):
    """A message on one agent's channel. `delivery` is the MQTT message to acknowledge once it was handled."""

    agent: str
    channel: Channel
    delivery: Delivery

    @property
    def payload(self) -> bytes:
        """The payload as received."""
        return self.delivery.payload

    @property
    def retained(self) -> bool:
        """True for a retained message of the broker (MQTT 5 section 3.3.1.3)."""
        return self.delivery.retained


def addressed(delivery: Delivery, topics: Topics) -> Inbound | None:
    """Return the delivery with its agent and channel, or None if its topic is outside the scheme."""
    place = topics.parse(delivery.topic)
    return Inbound(*place, delivery) if place else None
