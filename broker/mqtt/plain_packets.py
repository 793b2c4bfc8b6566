"""The packets of MQTT 5 that are handled many at once: read from bytes, and written to bytes.

Plain ones are whole PUBLISH packets at QoS 0 and 1 without properties, and PUBACKs of success.
"""

from collections.abc import Iterable

from broker.mqtt.client_events import Message

__all__ = ["PLAIN_PUBACK", "PUBLISH", "plain_packets", "pubacks"]


PUBLISH = 3  # the type of the packet; its first byte has flags, too
PLAIN_PUBACK = 0x40  # the first byte of the packet
_NO_SUBSCRIBERS = 0x10  # a success, though no client listens on the topic


def pubacks(mids: Iterable[int]) -> bytes:
    """Return the PUBACKs of success for these packet ids."""
    return b"".join(b"\x40\x02%c%c" % divmod(mid, 256) for mid in mids)


def plain_packets(data: bytes, at: int) -> tuple[list[Message], list[int], int]:
    """Return the messages and confirmed packet ids from `at` on, and where the first packet begins that is not plain.

    A packet that is not whole, or has 16 KiB or more, is not plain either.
    """
    messages: list[Message] = []
    confirmed: list[int] = []
    end = len(data)
    while at + 4 <= end:  # no plain packet is shorter
        first, length, body = data[at], data[at + 1], at + 2
        if length > 127:
            more = data[body]
            if more > 127:
                break
            length, body = length & 127 | more << 7, body + 1
        stop = body + length
        if stop > end or length < 2:
            break
        start = data[body] << 8 | data[body + 1]
        if first == PLAIN_PUBACK:
            if length != 2 and not (length == 3 and data[body + 2] in (0, _NO_SUBSCRIBERS)):
                break
            confirmed.append(start)
        elif first >> 4 == PUBLISH and (message := _plain_message(first, data, body + 2, start, stop)) is not None:
            messages.append(message)
        else:
            break
        at = stop
    return messages, confirmed, at


def _plain_message(first: int, data: bytes, at: int, topic_bytes: int, stop: int) -> Message | None:
    """Return the PUBLISH whose topic begins at `at`; None if it is not plain."""
    qos, end = first >> 1 & 3, at + topic_bytes
    properties = end + 2 if qos else end
    if qos > 1 or properties >= stop or data[properties] or not topic_bytes:
        return None
    try:
        topic = data[at:end].decode()
    except UnicodeDecodeError:
        return None
    mid = data[end] << 8 | data[end + 1] if qos else 0
    return Message(topic, data[properties + 1 : stop], bool(first & 1), bool(first & 8), mid)
