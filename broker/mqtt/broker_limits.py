"""What a broker grants to this client: the properties of its CONNACK (MQTT 5 section 3.2.2.3)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = [
    "KEEPALIVE_S",
    "MAX_PACKET_BYTES",
    "BrokerLimits",
    "packet_bytes",
    "property_bytes",
]


MAX_PACKET_BYTES = 262144 + 4096  # a frame, with its topic and properties
KEEPALIVE_S = 30
_MAX_IN_FLIGHT = 20  # what Mosquitto grants by default; a CONNACK without Receive Maximum means 65535
_PUBLISH_BYTES = 10  # fixed header, length of the topic, packet id, length of the properties (MQTT 5 section 3.3)


def packet_bytes(topic: str, payload_bytes: int) -> int:
    """Return how long a PUBLISH is at most."""
    return _PUBLISH_BYTES + len(topic.encode()) + payload_bytes


def property_bytes(pairs: Iterable[tuple[str, str]]) -> int:
    """Return how much longer user properties make a PUBLISH at most (MQTT 5 section 3.3.2.3.7); 0 without any."""
    found = [5 + len(name.encode()) + len(value.encode()) for name, value in pairs]
    return 1 + sum(found) if found else 0


@dataclass(frozen=True)
class BrokerLimits:
    """The limits of one broker; the defaults are those of this client, before any CONNACK.

    `packet_bytes` is the longest packet that may be sent, `filled_bytes` how long to make one that can be divided,
    `in_flight` how many messages may be unacknowledged, `keepalive_s` the interval of pings, and `session_expiry_s` how
    long the session outlives the connection (None: as requested). `client_id` is the id that the broker assigned, or
    None.
    """

    packet_bytes: int = MAX_PACKET_BYTES
    filled_bytes: int = MAX_PACKET_BYTES
    in_flight: int = _MAX_IN_FLIGHT
    max_qos: int = 1
    retain: bool = True
    will: bool = True
    wildcards: bool = True
    session_expiry_s: int | None = None
    keepalive_s: int = KEEPALIVE_S
    client_id: str | None = None

    @classmethod
    def from_connack(cls, properties: object) -> "BrokerLimits":
        """Return what these properties grant; each is an attribute with its name in the standard, if it was sent."""
        granted = vars(properties) if properties is not None else {}
        keepalive_s = granted.get("ServerKeepAlive") or KEEPALIVE_S  # 0: the broker never times out; we still ping
        packet_bytes = min(MAX_PACKET_BYTES, granted.get("MaximumPacketSize", MAX_PACKET_BYTES))
        return cls(
            packet_bytes=packet_bytes,
            filled_bytes=packet_bytes,
            in_flight=min(_MAX_IN_FLIGHT, granted.get("ReceiveMaximum", _MAX_IN_FLIGHT)),
            max_qos=min(1, granted.get("MaximumQoS", 1)),
            retain=bool(granted.get("RetainAvailable", 1)),
            wildcards=bool(granted.get("WildcardSubscriptionAvailable", 1)),
            session_expiry_s=granted.get("SessionExpiryInterval"),
            keepalive_s=min(KEEPALIVE_S, keepalive_s),
            client_id=granted.get("AssignedClientIdentifier"),
        )

    def without(self, refused_bytes: int) -> "BrokerLimits":
        """Return these limits after the broker has refused a packet of this length as too long.

        It does not say what it takes. What cannot be divided is still tried if it is shorter; everything else is
        halved, as it would otherwise reach the broker's limit byte by byte.
        """
        return replace(
            self,
            packet_bytes=min(self.packet_bytes, refused_bytes - 1),
            filled_bytes=min(self.filled_bytes, refused_bytes // 2),
        )

    def payload_bytes(self, topic: str) -> int:
        """Return the length of the longest payload that can be published on this topic."""
        return self.packet_bytes - packet_bytes(topic, 0)

    def filled_payload_bytes(self, topic: str) -> int:
        """Return how long to make a payload of several parts on this topic, at most `payload_bytes`; at least 1."""
        return max(1, self.filled_bytes - packet_bytes(topic, 0))

    def shortcomings(self, requested_session_s: int) -> tuple[str, ...]:
        """Return what this client needs and the broker does not offer, one sentence each."""
        found = []
        if self.max_qos < 1:
            found.append("The broker offers QoS 0 only: lost messages are noticed late, by their resending.")
        if not self.retain:
            found.append("The broker keeps no retained messages: a status is known only after its next publication.")
        if not self.will:
            found.append(
                "The broker takes no last will as long as this one: that this client is away is noticed only after two "
                "status intervals."
            )
        if not self.wildcards:
            found.append("The broker offers no wildcard subscriptions, which a server needs to receive anything.")
        if self.packet_bytes < MAX_PACKET_BYTES:
            found.append(
                f"The broker takes no packets of more than {self.packet_bytes} bytes, and they may have "
                f"{MAX_PACKET_BYTES}: longer commands are not sent, and longer results are cut."
            )
        if self.session_expiry_s is not None and self.session_expiry_s < requested_session_s:
            found.append(
                f"The broker keeps the session of an absent client for {self.session_expiry_s} s, not for "
                f"{requested_session_s} s: what is queued longer is sent again."
            )
        return tuple(found)
