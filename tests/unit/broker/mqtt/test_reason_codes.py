import pytest

from broker.mqtt.reason_codes import list_codes

CONNACK, PUBACK, SUBACK, DISCONNECT, PUBLISH = 0x20, 0x40, 0x90, 0xE0, 0x32
PROPERTIES = b"\x05\x1f\x00\x02no"  # a reason string
LONG_PROPERTIES = b"\x83\x01\x1f\x00\x80" + 128 * b"x"


@pytest.mark.parametrize(
    ("command", "before", "codes", "after"),
    [
        (PUBACK, b"\x00\x01", "", b"\x00\x01"),
        (PUBACK, b"\x00\x01\x10\x00", "10", b"\x00\x01\x10\x00"),
        (PUBACK, b"\x00\x01\x97", "97", b"\x00\x01\x97"),
        (PUBACK, b"\x00\x01\x95", "95", b"\x00\x01\x80"),
        (SUBACK, b"\x00\x01\x00\x01\x95\x87", "01 95 87", b"\x00\x01\x00\x01\x80\x87"),
        (SUBACK, b"\x00\x01" + PROPERTIES + b"\xff", "ff", b"\x00\x01" + PROPERTIES + b"\x80"),
        (SUBACK, b"\x00\x01" + LONG_PROPERTIES + b"\x95", "95", b"\x00\x01" + LONG_PROPERTIES + b"\x80"),
        (SUBACK, b"\x00\x01\xff", "", b"\x00\x01\xff"),
        (CONNACK, b"\x00\x97\x00", "97", b"\x00\x97\x00"),
        (CONNACK, b"\x00\x8e\x00", "8e", b"\x00\x80\x00"),
        (CONNACK, b"\x00\x05", "05", b"\x00\x05"),
        (DISCONNECT, b"", "", b""),
        (DISCONNECT, b"\x95\x00", "95", b"\x95\x00"),
        (DISCONNECT, b"\xa3", "a3", b"\x80"),
        (PUBLISH, b"\x95\x95\x95", "", b"\x95\x95\x95"),
    ],
)
def test_failure_that_is_not_listed_there_becomes_one_that_is(
    command: int, before: bytes, codes: str, after: bytes
) -> None:
    packet = bytearray(before)
    assert (list_codes(command, packet), bytes(packet)) == (bytes.fromhex(codes), after)
