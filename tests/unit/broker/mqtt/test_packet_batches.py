"""Packets that are handled together arrive, and are sent, as paho's own path would do it."""

import random
import select
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paho.mqtt import client as paho
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion

from broker.mqtt.client_events import Message
from broker.mqtt.packet_batches import TESTED_VERSION, PacketBatches, missing
from broker.mqtt.plain_packets import plain_packets

LOCK = Path(__file__).parents[4] / "uv.lock"
PUBLISH, PUBACK = 0x30, 0x40
PINGRESP, SUBACK = b"\xd0\x00", b"\x90\x04\x00\x05\x00\x01"
Seen = tuple[list[Message], set[str], int, str]


def packet(first: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, digit = divmod(left, 128)
        length.append(digit | (128 if left else 0))
        if not left:
            return bytes([first]) + bytes(length) + body


def message(payload: bytes, topic: bytes = b"t", mid: int = 7, flags: int = 2, properties: bytes = b"\x00") -> bytes:
    packet_id = mid.to_bytes(2, "big") if flags & 6 else b""
    return packet(PUBLISH | flags, len(topic).to_bytes(2, "big") + topic + packet_id + properties + payload)


def puback(mid: int, rest: bytes = b"") -> bytes:
    return packet(PUBACK, mid.to_bytes(2, "big") + rest)


ONE = len(message(b"x"))


def joined(client: Client, sock: socket.socket, unanswered: int = 20) -> Client:
    """Connect it by this socket, with messages on their way that have the packet ids from 1 on."""
    client._sock, client._state = sock, paho._ConnectionState.MQTT_CS_CONNECTED
    sock.setblocking(False)
    client.suppress_exceptions = True
    for mid in range(1, unanswered + 1):
        sent = paho.MQTTMessage(mid, b"topic/%d" % mid)
        sent.qos, sent.state = 1, paho.mqtt_ms_wait_for_puback
        client._out_messages[mid] = sent
        client._inflight_messages += 1
    return client


def new(kind: type[Client]) -> Any:
    return kind(CallbackAPIVersion.VERSION2, "x", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)


def seen_by(kind: type[Client], pieces: Sequence[bytes]) -> Seen:
    """Return the messages, the topics of those that are confirmed, paho's code and why it ended."""
    ours, theirs = socket.socketpair()
    messages: list[Message] = []
    confirmed: set[str] = set()
    ended: list[str] = []
    with ours, theirs:
        client = joined(new(kind), ours)
        client.on_message = lambda _, __, it: messages.append(
            Message(it.topic, bytes(it.payload), it.retain, it.dup, it.mid)
        )
        client.on_publish = lambda _, __, mid, *rest: confirmed.add(f"topic/{mid}")
        client.on_disconnect = lambda _, __, flags, reason, ___: ended.append(str(reason))
        client.on_batch = messages.extend
        client.on_confirmed = lambda mids, topics: confirmed.update(topics)
        for piece in pieces:
            theirs.sendall(piece)
            for _ in range(200):  # paho's own path reads one packet at a time
                rc = client.loop_read()
                if rc or client._sock is None:
                    return messages, confirmed, int(rc or client.loop_read()), "".join(ended)
        return messages, confirmed, 0, f"{client._inflight_messages} of {sorted(client._out_messages)}"


def assert_same(pieces: Sequence[bytes]) -> Seen:
    seen = seen_by(PacketBatches, pieces)
    assert seen == seen_by(Client, pieces)
    return seen


STREAM = b"".join(
    (
        message(b"one"),
        puback(1),
        message(b"", topic="ä/ü".encode(), mid=65535, flags=0b1011),
        SUBACK,
        message(b"at QoS 0", flags=1),
        puback(2, b"\x10"),
        puback(3, b"\x87"),
        message(b"a property", properties=b"\x02\x01\x01"),
        message(b"\x00" * 200),
        PINGRESP,
        puback(4, b"\x00\x00"),
        message(b"last"),
    )
)


def test_packets_split_at_every_byte_arrive_as_paho_reads_them() -> None:
    whole = assert_same([STREAM])
    assert [len(it.payload) for it in whole[0]] == [3, 0, 8, 10, 200, 4]
    assert whole[1] == {f"topic/{mid}" for mid in range(1, 5)}
    for at in range(1, len(STREAM)):
        assert seen_by(PacketBatches, [STREAM[:at], STREAM[at:]]) == whole
    assert seen_by(PacketBatches, [bytes([byte]) for byte in STREAM]) == whole


@pytest.mark.parametrize("length", [0, 100, 127, 128, 16_000, 16_383, 16_384, 65_535, 65_536, 70_000, 266_000])
def test_message_of_any_length_arrives(pair: tuple[socket.socket, socket.socket], length: int) -> None:
    payload = random.Random(length).randbytes(length)
    client, messages = joined(new(PacketBatches), pair[0]), list[bytes]()
    client.on_batch = lambda batch: messages.extend(it.payload for it in batch)
    client.on_message = lambda _, __, it: messages.append(bytes(it.payload))
    stream = message(b"before") + message(payload) + message(b"after")
    sender = threading.Thread(target=pair[1].sendall, args=(stream,))
    sender.start()
    while len(messages) < 3:
        assert not client.loop_read()
    sender.join()
    assert messages == [b"before", payload, b"after"]


@pytest.mark.parametrize(
    "broken",
    [
        b"\x32\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x32\x80\x80\x80\x80\x01",
        b"\x30\x00",
        b"\x32\x02\x00\x01",
        b"\x32\x05\x00\x09abc",  # a topic longer than the packet
        b"\x32\x05\x00\x01tab",  # without the length of the properties
        b"\x36\x07\x00\x01t\x00\x01\x00x",  # QoS 3
        b"\x40\x00",
        b"\x40\x01\x00",
        b"\x00\x00",
        b"\xf0\x00",
        message(b"x", properties=b"\x7f"),
        message(b"x", properties=b"\x02\x63\x01"),
    ],
)
def test_malformed_packet_ends_the_connection_as_with_paho(broken: bytes) -> None:
    messages, confirmed, rc, _ = assert_same([message(b"before") + puback(1) + broken + b"\x00" * 9])
    assert ([it.payload for it in messages], confirmed) == ([b"before"], {"topic/1"})
    assert rc


def test_topic_that_is_no_text_is_left_to_paho(pair: tuple[socket.socket, socket.socket]) -> None:
    client, topics = joined(new(PacketBatches), pair[0]), list[bytes]()
    client.on_batch = lambda batch: topics.extend(it.topic for it in batch)
    client.on_message = lambda _, __, it: topics.append(it._topic)
    pair[1].sendall(message(b"x", topic=b"\xff") + message(b"x"))
    assert not client.loop_read()
    assert topics == [b"\xff", "t"]


def test_end_of_the_connection_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    client, ended = joined(new(PacketBatches), pair[0]), list[str]()
    client.on_disconnect = lambda _, __, ___, reason, ____: ended.append(str(reason))
    pair[1].close()
    assert client.loop_read()
    assert ended == ["Unspecified error"]


def test_error_of_a_read_after_another_ends_the_connection_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        client = joined(new(PacketBatches), ours)
        client.on_batch = lambda batch: None
        theirs.sendall(message(b"x"))
        select.select([ours], [], [])
        assert not client.loop_read()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset in place of an end
        theirs.close()
        select.select([ours], [], [])
        assert client.loop_read() == MQTTErrorCode.MQTT_ERR_CONN_LOST


def test_what_is_written_after_the_disconnect_of_the_broker_is_no_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, lines = joined(new(PacketBatches), pair[0]), list[str]()
    client.on_log = lambda _, __, level, line: lines.append(line)
    pair[1].sendall(b"\xe0\x00")
    assert not client.loop_read()
    client.acknowledge([1])
    client.flush()
    assert not [line for line in lines if "failed" in line]


def test_end_of_a_connection_is_not_that_of_the_next_one(pair: tuple[socket.socket, socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = new(PacketBatches)
        client.connect_async(*server.getsockname())
        joined(client, pair[0])
        pair[1].close()
        assert client.work(10, lambda: True)  # and the network thread, which waits for its turn, finds no socket
        assert not client.reconnect()
        assert not client._loop(0.0)
        client._sock_close()


topics = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=0, max_size=5).map(str.encode)
packets = st.one_of(
    st.builds(
        message,
        st.binary(max_size=300),
        topics,
        st.integers(0, 65535),
        st.sampled_from([0, 1, 2, 3, 10, 11]),
        st.sampled_from([b"\x00", b"\x02\x01\x01", b"\x05\x02\x00\x00\x00\x09"]),
    ),
    st.builds(puback, st.integers(0, 25), st.sampled_from([b"", b"\x00", b"\x10", b"\x87", b"\x10\x00"])),
    st.sampled_from([PINGRESP, SUBACK, b"\xe0\x00"]),
    st.binary(max_size=4),
)


@settings(max_examples=300, deadline=None)
@example([STREAM], [3, 70])
@given(st.lists(packets, max_size=30), st.lists(st.integers(0, 3000), max_size=6))
def test_any_packets_in_any_pieces_arrive_as_paho_reads_them(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(sent)
    ends = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert_same([stream[a:b] for a, b in pairwise(ends) if a < b])


def received(end: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        got += end.recv(65_536)
    return bytes(got)


def test_acknowledgements_and_messages_are_written_with_one_call(pair: tuple[socket.socket, socket.socket]) -> None:
    client, sends = joined(new(PacketBatches), pair[0], unanswered=0), list[int]()
    send = client._sock_send
    client._sock_send = lambda data: sends.append(len(data)) or send(data)
    client.acknowledge(list(range(1, 301)))
    client.publish("t", b"x", qos=1)
    acks = b"".join(puback(mid) for mid in range(1, 301))
    assert received(pair[1], len(acks) + ONE) == acks + message(b"x", mid=1)
    assert sends == [len(acks) + ONE]


def test_what_the_socket_does_not_take_is_written_later_in_order(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = joined(new(PacketBatches), pair[0], unanswered=0)
    client._max_inflight_messages = 1000
    expected = b""
    for number in range(1, 40):
        client.acknowledge([number])
        client.publish("t", bytes([number]) * 3000, qos=1)
        expected += puback(number) + message(bytes([number]) * 3000, mid=number)
        if number == 20:
            client._send_pingreq()
            expected += b"\xc0\x00"
    assert client.want_write()
    got = bytearray()
    while len(got) < len(expected):
        got += pair[1].recv(65_536)
        assert not client.loop_write()
    assert bytes(got) == expected


def test_messages_that_waited_for_an_answer_follow_together(pair: tuple[socket.socket, socket.socket]) -> None:
    client, sends = joined(new(PacketBatches), pair[0], unanswered=0), list[int]()
    client.on_confirmed = lambda mids, topics: None
    for _ in range(40):
        client.publish("t", b"x", qos=1)
    first = len(received(pair[1], 20 * ONE))
    send = client._sock_send
    client._sock_send = lambda data: sends.append(len(data)) or send(data)
    pair[1].sendall(b"".join(puback(mid) for mid in range(1, 21)))
    assert not client.loop_read()
    assert (first, sends, len(received(pair[1], 20 * ONE))) == (20 * ONE, [20 * ONE], 20 * ONE)


def test_threads_that_write_at_the_same_time_send_whole_packets(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = joined(new(PacketBatches), pair[0], unanswered=0)
    client._max_inflight_messages = 60_000
    client._sockpairR, client._sockpairW = paho._socketpair_compat()
    ended = threading.Event()

    def work(thread: int) -> None:
        for number in range(200):
            client.acknowledge([thread * 1000 + number])
            client.publish("t", b"%d" % thread * 400, qos=1)

    def network() -> None:
        while not ended.is_set():
            client._loop(0.01)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    threads.append(threading.Thread(target=network))
    with closing(client._sockpairR), closing(client._sockpairW):
        for thread in threads:
            thread.start()
        got = received(pair[1], 4 * 200 * (4 + len(message(b"0" * 400))))
        ended.set()
        for thread in threads:
            thread.join()
    messages, confirmed, end = plain_packets(got, 0)
    assert end == len(got)
    assert sorted(confirmed) == [thread * 1000 + number for thread in range(1, 5) for number in range(200)]
    for thread in range(1, 5):
        assert sum(it.payload == b"%d" % thread * 400 for it in messages) == 200
        assert [mid for mid in confirmed if mid // 1000 == thread] == sorted(
            mid for mid in confirmed if mid // 1000 == thread
        )


def test_other_version_of_paho_keeps_its_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    client = new(PacketBatches)
    assert missing(client) is None
    monkeypatch.delattr(Client, "_packet_read")
    assert missing(client) == "packets are handled one by one: paho-mqtt has no _packet_read"
    monkeypatch.delattr(Client, "_sock_recv")  # also one that is replaced here
    assert missing(client) == "packets are handled one by one: paho-mqtt has no _packet_read, _sock_recv"
    monkeypatch.setattr("paho.mqtt.__version__", "2.9.1")
    assert missing(client) == "packets are handled one by one: paho-mqtt is 2.9.1, not 2.2.0"


def test_version_that_was_tested_is_the_locked_one() -> None:
    assert f'name = "paho-mqtt"\nversion = "{TESTED_VERSION}"' in LOCK.read_text(encoding="utf-8")
