"""A blocking MQTT client that publishes as fast as the broker takes it, and the broker's own rate by it."""

import socket
import threading
from collections.abc import Iterable
from time import monotonic

from benchmarks.fleet import mqtt
from broker.mosquitto.process import EmbeddedMosquitto

__all__ = ["RawClient", "broker_rate"]

_WINDOW = 500
_TIMEOUT_S = 60.0


class RawClient:
    """One connection; nothing is resumed. Raises OSError if the broker is silent."""

    def __init__(self, port: int, name: str, subscriptions: list[str] | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        self._socket.sendall(mqtt.connect(name, f"bench/{name}", b"gone"))
        self._wait_for(mqtt.CONNACK)
        if subscriptions:
            self._socket.sendall(mqtt.subscribe(subscriptions, 1))
            self._wait_for(mqtt.SUBACK)

    def publish(self, topic: str, payloads: Iterable[bytes]) -> None:
        """Publish all, and return when the broker has acknowledged them."""
        to, mid, in_flight, batch = mqtt.publisher(topic), 0, 0, b""
        for payload in payloads:
            mid = mid % 65535 + 1
            batch += mqtt.publish(to, mid, payload)
            in_flight += 1
            if len(batch) > 1 << 16 or in_flight >= _WINDOW:
                self._socket.sendall(batch)
                batch = b""
            while in_flight >= _WINDOW:
                in_flight -= self._acknowledged()
        self._socket.sendall(batch)
        while in_flight:
            in_flight -= self._acknowledged()

    def receive(self, count: int) -> None:
        """Receive and acknowledge so many messages."""
        while count > 0:
            mids = [mqtt.published(body)[1] for first, body in self._read() if first >> 4 == mqtt.PUBLISH]
            self._socket.sendall(b"".join(map(mqtt.puback, mids)))
            count -= len(mids)

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()

    def _acknowledged(self) -> int:
        return sum(first >> 4 == mqtt.PUBACK for first, _ in self._read())

    def _wait_for(self, kind: int) -> None:
        while not any(first >> 4 == kind for first, _ in self._read()):
            pass

    def _read(self) -> list[tuple[int, bytes]]:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("The broker has closed the connection.")
        found, self._rest = mqtt.packets(self._rest + data)
        return found


def broker_rate(count: int = 20_000) -> float:
    """Return the messages of 300 bytes per second from one client through Mosquitto to another, at QoS 1."""
    with EmbeddedMosquitto() as broker:
        receiver, sender = RawClient(broker.port, "receiver", ["bench/rate"]), RawClient(broker.port, "sender")
        thread = threading.Thread(target=sender.publish, args=("bench/rate", [b"x" * 300] * count))
        began = monotonic()
        thread.start()
        receiver.receive(count)
        took = monotonic() - began
        thread.join()
        receiver.close()
        sender.close()
    return count / took
