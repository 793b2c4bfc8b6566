"""A proxy before a broker that knows MQTT 5, and withholds one type of packet of one client."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from tests.support.fakes.mqtt5_broker import CONNECT

__all__ = ["MqttProxy", "Sender", "mqtt_proxy"]


class Sender(Enum):
    """Who sends a packet."""

    CLIENT = auto()
    BROKER = auto()


@dataclass
class MqttProxy:
    """Passes everything on but what `withhold` names; the connections stay open. For any thread.

    `count` is how many packets were withheld since the last `withhold`.
    """

    port: int
    broker_port: int
    count: int = 0
    _rule: tuple[str, Sender, int] | None = None
    _connected: list[tuple[list[str], socket.socket]] = field(default_factory=list)
    _ends: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def withhold(self, client: str, sender: Sender, kind: int) -> None:
        """Withhold this type of packet (MQTT 5 section 2.1.2) of the connections with this client id from now on."""
        self.count, self._rule = 0, (client, sender, kind)

    def pass_all(self) -> None:
        """Withhold nothing from now on."""
        self._rule = None

    def cut(self, client: str) -> None:
        """End the connections with this client id."""
        for name, near in self._connected:
            if name == [client]:
                with suppress(OSError):
                    near.shutdown(socket.SHUT_RDWR)

    def serve(self, server: socket.socket) -> None:
        """Accept connections until the listening socket is closed."""
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", self.broker_port))
                self._ends += [near, far]
                name: list[str] = []
                self._connected.append((name, near))
                for source, sink, sender in ((near, far, Sender.CLIENT), (far, near, Sender.BROKER)):
                    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    thread = threading.Thread(target=self._pass_on, args=(source, sink, sender, name))
                    self._threads.append(thread)
                    thread.start()

    def close(self) -> None:
        """End all connections."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, sender: Sender, name: list[str]) -> None:
        with suppress(OSError), source.makefile("rb") as stream:
            while packet := _read(stream):
                if packet[0] >> 4 == CONNECT:
                    name.append(_client_id(packet))
                if name and (name[0], sender, packet[0] >> 4) == self._rule:
                    self.count += 1
                else:
                    sink.sendall(packet)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def mqtt_proxy(broker_port: int) -> Iterator[MqttProxy]:
    """Run a proxy before the broker on this port of loopback for the block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = MqttProxy(server.getsockname()[1], broker_port)
        thread = threading.Thread(target=proxy.serve, args=(server,))
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            proxy.close()


def _read(stream: object) -> bytes:
    """Return the next packet as it is, or nothing at the end of the stream."""
    read = stream.read  # type: ignore[attr-defined]
    packet = bytearray(read(1))
    length, shift = 0, 0
    while packet:
        byte = read(1)
        packet += byte
        if not byte:
            return b""
        length |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            return bytes(packet + read(length))
    return b""


def _client_id(connect: bytes) -> str:
    """Return the client id in a CONNECT: after its fixed header, 10 bytes and the properties (section 3.1)."""
    at = 1 + _length_of_integer(connect, 1) + 10
    at += _length_of_integer(connect, at) + _integer(connect, at)
    length = int.from_bytes(connect[at : at + 2], "big")
    return connect[at + 2 : at + 2 + length].decode()


def _length_of_integer(packet: bytes, at: int) -> int:
    return next(n for n in range(1, 5) if packet[at + n - 1] < 128)


def _integer(packet: bytes, at: int) -> int:
    return sum((packet[at + n] & 127) << (7 * n) for n in range(_length_of_integer(packet, at)))
