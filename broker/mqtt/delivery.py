"""One received MQTT message."""

from dataclasses import dataclass

__all__ = [
    "Delivery",
]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message as it came. `mid` is 0 for QoS 0; `connection` says which connection may acknowledge it."""

    topic: str
    payload: bytes
    retained: bool
    duplicate: bool
    mid: int
    connection: int
