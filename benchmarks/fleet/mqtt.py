"""MQTT 5 packets by hand, as far as a simulated agent needs them: paho would cost more than the server under load."""

import struct
from collections.abc import Iterator, Sequence

__all__ = [
    "CONNACK",
    "PUBACK",
    "PUBLISH",
    "SUBACK",
    "connect",
    "packets",
    "puback",
    "publish",
    "published",
    "publisher",
    "subscribe",
]

CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9
_NO_PINGS_S = 60_000  # a keepalive that no run outlasts
_SESSION_S = 7 * 24 * 3600
_RECEIVE_MAXIMUM = 1000
_MAX_PACKET_BYTES = 266_240
_WILL_RETAINED_AT_QOS_1 = 0x04 | 0x08 | 0x20
_PROPERTIES = struct.pack(">BIBHBI", 0x11, _SESSION_S, 0x21, _RECEIVE_MAXIMUM, 0x27, _MAX_PACKET_BYTES)
_SHORT = struct.Struct(">H")


def connect(client_id: str, will_topic: str, will: bytes) -> bytes:
    """Return the CONNECT of an agent: its session lasts 7 days, its last will is retained."""
    head = _text("MQTT") + bytes([5, _WILL_RETAINED_AT_QOS_1]) + _SHORT.pack(_NO_PINGS_S)
    body = head + bytes([len(_PROPERTIES)]) + _PROPERTIES + _text(client_id)
    return _packet(0x10, body + b"\0" + _text(will_topic) + _SHORT.pack(len(will)) + will)


def subscribe(topics: Sequence[str], mid: int) -> bytes:
    """Return the SUBSCRIBE to these topics at QoS 1."""
    return _packet(0x82, _SHORT.pack(mid) + b"\0" + b"".join(_text(topic) + b"\x01" for topic in topics))


def publisher(topic: str, *, retain: bool = False) -> tuple[int, bytes]:
    """Return what `publish` needs of a topic at QoS 1, made once."""
    return 0x32 | retain, _text(topic)


def publish(to: tuple[int, bytes], mid: int, payload: bytes) -> bytes:
    """Return the PUBLISH of a payload, to what `publisher` returned."""
    first, topic = to
    return bytes([first]) + _length(len(topic) + 3 + len(payload)) + topic + _SHORT.pack(mid) + b"\0" + payload


def puback(mid: int) -> bytes:
    """Return the PUBACK of a message."""
    return b"\x40\x02" + _SHORT.pack(mid)


def packets(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the complete packets at the start of `data`, as first byte and body, and the bytes after them."""
    found: list[tuple[int, bytes]] = []
    at, size = 0, len(data)
    while at + 2 <= size:
        length, begins = _read_length(data, at + 1)
        if begins is None or begins + length > size:
            break
        found.append((data[at], data[begins : begins + length]))
        at = begins + length
    return found, data[at:]


def published(body: bytes) -> tuple[str, int, bytes]:
    """Return topic, packet id and payload of the body of a PUBLISH at QoS 1."""
    end = 2 + _SHORT.unpack_from(body)[0]
    properties, begins = _read_length(body, end + 2)
    assert begins is not None
    return body[2:end].decode(), _SHORT.unpack_from(body, end)[0], body[begins + properties :]


def _read_length(data: bytes, at: int) -> tuple[int, int | None]:
    """Return a variable byte integer and the position after it; None for that if it is incomplete."""
    value = shift = 0
    for position in range(at, min(at + 4, len(data))):
        value |= (data[position] & 0x7F) << shift
        if data[position] < 0x80:
            return value, position + 1
        shift += 7
    return 0, None


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


def _length(value: int) -> bytes:
    return bytes(_digits(value))


def _digits(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _text(text: str) -> bytes:
    return _SHORT.pack(len(text.encode())) + text.encode()
