"""What the server needs of a connection to the broker."""

from typing import Protocol

from broker.contract.trace_context import TraceContext

__all__ = [
    "Wire",
]


class Wire(Protocol):
    """The part of an MQTT connection that the server uses."""

    @property
    def backlog(self) -> int:
        """How many messages the broker has not confirmed yet."""

    @property
    def backlog_bytes(self) -> int:
        """How long these messages are together, without their topics."""

    @property
    def max_packet_bytes(self) -> int:
        """The length of the longest MQTT packet that the broker takes."""

    def max_payload_bytes(self, topic: str) -> int:
        """Return the length of the longest payload that fits into such a packet on this topic."""

    def filled_payload_bytes(self, topic: str) -> int:
        """Return how long to make a payload on this topic that can be divided."""

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: TraceContext | None = None) -> bool:
        """Publish at QoS 1 without blocking, with a context for the receiver; False means that it was dropped."""
