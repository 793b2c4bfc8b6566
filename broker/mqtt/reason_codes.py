"""The reason codes of MQTT 5 (section 2.4), and what brokers send in their place."""

__all__ = ["PACKET_TOO_LARGE", "SESSION_TAKEN_OVER", "UNSPECIFIED_ERROR", "list_codes"]


UNSPECIFIED_ERROR = 0x80
SESSION_TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95
_CONNACK, _PUBACK, _SUBACK, _DISCONNECT = 2, 4, 9, 14
_FAILURES = {  # sections 3.2.2.2, 3.4.2.1, 3.9.3 and 3.14.2.1
    _CONNACK: bytes.fromhex("80 81 82 83 84 85 86 87 88 89 8A 8C 90 95 97 99 9A 9B 9C 9D 9F"),
    _PUBACK: bytes.fromhex("80 83 87 90 91 97 99"),
    _SUBACK: bytes.fromhex("80 83 87 8F 91 97 9E A1 A2"),
    _DISCONNECT: bytes.fromhex("80 81 82 83 87 89 8B 8C 8D 8E 8F 90 93 94 95 96 97 98 99 9A 9B 9C 9D 9E 9F A0 A1 A2"),
}
_FIRST = {_CONNACK: 1, _PUBACK: 2, _DISCONNECT: 0}  # where the only one is


def list_codes(command: int, packet: bytearray) -> bytes:
    """Return the reason codes of a packet, after replacing in it failures that the standard does not list there.

    paho would end the connection for such a code, and the next one with the same answer: Mosquitto refuses what is
    longer than its `message_size_limit` with a PUBACK of 0x95, which is for CONNACK and DISCONNECT. `command` is the
    first byte of the packet, `packet` what follows its length. Packets without reason codes are left as they are.
    """
    kind = command >> 4
    listed = _FAILURES.get(kind)
    if listed is None:
        return b""
    begin, end = _places(kind, packet)
    codes = bytes(packet[begin:end])
    for place, code in enumerate(codes, begin):
        if code >= UNSPECIFIED_ERROR and code not in listed:
            packet[place] = UNSPECIFIED_ERROR
    return codes


def _places(kind: int, packet: bytearray) -> tuple[int, int]:
    if kind in _FIRST:
        return _FIRST[kind], _FIRST[kind] + 1
    length, place, shift = 0, 2, 0
    while place < len(packet):  # of the properties: a variable byte integer (section 1.5.5)
        length |= (packet[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if packet[place - 1] < 0x80:
            break
    return place + length, len(packet)
