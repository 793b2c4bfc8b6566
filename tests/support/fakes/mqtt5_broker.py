"""A broker for the answers that Mosquitto never gives: it speaks just enough MQTT 5, one client at a time."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["ScriptedBroker", "connack", "scripted_broker"]


CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = (1, 2, 3, 4, 8, 9, 12, 13, 14)


@dataclass
class Packet:
    """One packet of the client: its type, the flags beside it, and the rest after the fixed header."""

    kind: int
    flags: int
    body: bytes

    @property
    def mid(self) -> int:
        """The packet id of a PUBLISH at QoS 1 or a SUBSCRIBE."""
        at = 2 + struct.unpack("!H", self.body[:2])[0] if self.kind == PUBLISH else 0
        return int(struct.unpack("!H", self.body[at : at + 2])[0])

    @property
    def topic(self) -> str:
        """The topic of a PUBLISH."""
        return self.body[2 : 2 + struct.unpack("!H", self.body[:2])[0]].decode()

    @property
    def payload(self) -> bytes:
        """The payload of a PUBLISH without properties."""
        return self.body[2 + len(self.topic) + (2 if self.flags & 0b110 else 0) + 1 :]


@dataclass
class ScriptedBroker:
    """What it answers, and what it got. A test changes the answers at any time; `connacks` are used up one by one.

    `suback` and `puback` are reason codes; `goodbye` is a DISCONNECT's reason code, sent after the CONNACK. A packet of
    more than `largest` bytes, which is not announced, ends the connection.
    """

    port: int
    connacks: list[bytes] = field(default_factory=list)
    connack: bytes = b""
    suback: int = 1
    puback: int = 0
    goodbye: int | None = None
    acknowledges: bool = True
    largest: int | None = None
    closes_after_suback: bool = False
    client: socket.socket | None = None
    got: list[Packet] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def of(self, kind: int) -> list[Packet]:
        """Return the packets of one type, in order."""
        return [packet for packet in self.got if packet.kind == kind]

    def drop(self) -> None:
        """Close the connection without a word."""
        assert self.client is not None
        self.client.shutdown(socket.SHUT_RDWR)

    def acknowledge_all(self) -> None:
        """Send the PUBACKs of all that has arrived."""
        assert self.client is not None
        for packet in self.of(PUBLISH):
            self.client.sendall(self._puback(packet))

    def _puback(self, packet: Packet) -> bytes:
        return _packet(PUBACK, struct.pack("!HBB", packet.mid, self.puback, 0))

    def answer(self, packet: Packet) -> bytes:
        """Return what the broker sends in response."""
        if packet.kind == CONNECT:
            greeting = self.connacks.pop(0) if self.connacks else self.connack or connack()
            return greeting + (b"" if self.goodbye is None else bytes([DISCONNECT << 4, 1, self.goodbye]))
        if packet.kind == SUBSCRIBE:
            reasons = bytes([self.suback]) * _filters(packet.body)
            return _packet(SUBACK, struct.pack("!HB", packet.mid, 0) + reasons)
        if packet.kind == PUBLISH and packet.flags & 0b110 and self.acknowledges:
            return self._puback(packet)
        return bytes([PINGRESP << 4, 0]) if packet.kind == PINGREQ else b""


def connack(properties: bytes = b"", reason: int = 0) -> bytes:
    """Return a CONNACK with these encoded properties (MQTT 5 section 3.2)."""
    return _packet(CONNACK, bytes([0, reason, len(properties)]) + properties)


@contextmanager
def scripted_broker() -> Iterator[ScriptedBroker]:
    """Run one for the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = ScriptedBroker(server.getsockname()[1])
        clients: list[socket.socket] = []
        thread = threading.Thread(target=_serve, args=(server, broker, clients))
        thread.start()
        try:
            yield broker
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for client in clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(server: socket.socket, broker: ScriptedBroker, clients: list[socket.socket]) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            clients.append(client)
            broker.client = client
            with client, client.makefile("rb") as stream, suppress(OSError):
                while packet := _read(stream):
                    broker.got.append(packet)
                    if broker.largest is not None and len(packet.body) > broker.largest:
                        client.sendall(bytes((DISCONNECT << 4, 1, 0x95)))  # Packet too large
                        break
                    answer = broker.answer(packet)
                    client.sendall(answer)
                    if packet.kind == SUBSCRIBE and broker.closes_after_suback:
                        break
                    if packet.kind == CONNECT and (broker.goodbye is not None or answer[3] != 0):
                        break


def _read(stream: object) -> Packet | None:
    read = stream.read  # type: ignore[attr-defined]
    first = read(1)
    if not first:
        return None
    length, shift = 0, 0
    while True:
        (byte,) = read(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return Packet(first[0] >> 4, first[0] & 15, read(length))


def _packet(kind: int, body: bytes) -> bytes:
    return bytes([kind << 4, len(body)]) + body


def _filters(body: bytes) -> int:
    at, count = 3, 0  # after the packet id and the (empty) properties
    while at < len(body):
        at += 2 + struct.unpack("!H", body[at : at + 2])[0] + 1
        count += 1
    return count
