"""A short MQTT 5 connection that asks the broker, and returns each of its answers as it was sent.

For checks and takeovers. paho is not used: it does not report which TLS alert ended a handshake, and it reconnects.
"""

import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from broker.mqtt.address import BrokerAddress
from broker.mqtt.tls import certified_name

__all__ = [
    "NOT_AUTHORIZED",
    "ClosedByBroker",
    "Probe",
    "connected_socket",
]


NOT_AUTHORIZED = 0x87
_VERDICT_S = 1.0
_CONNECT, _CONNACK, _PUBLISH, _PUBACK = 0x10, 0x20, 0x30, 0x40
_SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP, _DISCONNECT = 0x82, 0x90, 0xC0, 0xD0, 0xE0
_AT_LEAST_ONCE = 0x02
# MQTT 5, Clean Start, Keep Alive 10 s, no session expiry: the session ends with the connection (section 3.1.2.11.2).
_CONNECT_HEAD = b"\x00\x04MQTT\x05\x02\x00\x0a"
_UNKNOWN_METHOD = b"\x15\x00\x0aacm-doctor"
_MOST_BYTES = 1 << 20  # of one packet; no answer to a probe is as long


class ClosedByBroker(ConnectionError):
    """The broker has closed the connection, or sent what is not MQTT 5."""


@contextmanager
def connected_socket(
    address: BrokerAddress, context: ssl.SSLContext | None, timeout_s: float, *, host: str | None = None
) -> Iterator[socket.socket]:
    """Connect, with TLS if there is a context, for a block.

    The certificate must be for `host`, by default the address's. Raises OSError, ssl.SSLError also for an alert with
    which the broker refuses the client's certificate; no wait is longer than `timeout_s` seconds.
    """
    with socket.create_connection((address.host, address.port), timeout=timeout_s) as plain:
        if context is None:
            yield plain
            return
        with context.wrap_socket(plain, server_hostname=certified_name(host or address.host)) as secured:
            _await_verdict(secured)
            secured.settimeout(timeout_s)
            yield secured


def _await_verdict(secured: ssl.SSLSocket) -> None:
    """Return once the broker may have checked the certificate; raises ssl.SSLError if it refuses it.

    In TLS 1.3 the handshake ends for the client before that (RFC 8446 section 2). Then a packet that is sent too early
    is answered by a reset, which discards the alert. Most brokers send a session ticket when they have accepted it.
    """
    if secured.version() != "TLSv1.3":
        return
    verdict = select.poll()
    verdict.register(secured, select.POLLIN)
    verdict.poll(_VERDICT_S * 1000)
    secured.setblocking(False)
    with suppress(ssl.SSLWantReadError):  # a ticket, or nothing
        secured.recv(1)


class Probe:
    """One client over a connected socket. `received` are the topics of the messages that have arrived so far.

    Its methods raise OSError: ClosedByBroker if the broker closes the connection, TimeoutError if it does not answer.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._mid = 0
        self.received: list[str] = []

    def connect(self, client_id: str) -> int:
        """Connect with a new session; return the reason code of the CONNACK, 0 if the broker accepts the client."""
        return self._connect(b"", client_id)

    def greet(self) -> int:
        """Ask for a connection that no broker grants, which begins no session and ends none; return the reason code.

        An authentication method that is not known is refused before the client's name counts (MQTT 5 section 4.12).
        """
        return self._connect(_UNKNOWN_METHOD, "")

    def _connect(self, properties: bytes, client_id: str) -> int:
        self._send(_CONNECT, _CONNECT_HEAD + _length(len(properties)) + properties + _text(client_id))
        answer = self._answer(_CONNACK)
        if len(answer) < 2:
            raise ClosedByBroker("its answer is not a CONNACK of MQTT 5")
        return answer[1]

    def publish(self, topic: str) -> int:
        """Publish an empty message at QoS 1, not retained; return the reason code of the PUBACK."""
        mid = self._next_mid()
        self._send(_PUBLISH | _AT_LEAST_ONCE, _text(topic) + mid + b"\x00")
        answer = self._answer(_PUBACK, mid)
        return answer[2] if len(answer) > 2 else 0

    def subscribe(self, filters: Sequence[str]) -> list[int]:
        """Subscribe at QoS 0; return the reason codes of the SUBACK, once all retained messages have arrived."""
        mid = self._next_mid()
        self._send(_SUBSCRIBE, mid + b"\x00" + b"".join(_text(it) + b"\x00" for it in filters))
        codes = list(self._answer(_SUBACK, mid)[-len(filters) :])
        self._send(_PINGREQ, b"")
        self._answer(_PINGRESP)
        return codes

    def disconnect(self) -> None:
        """Disconnect, which ends the session."""
        self._send(_DISCONNECT, b"")

    def _next_mid(self) -> bytes:
        self._mid += 1
        return self._mid.to_bytes(2, "big")

    def _send(self, head: int, body: bytes) -> None:
        self._connection.sendall(bytes([head]) + _length(len(body)) + body)

    def _answer(self, kind: int, mid: bytes = b"") -> bytes:
        """Return the body of the next packet of this kind, and with this packet id; note messages before it."""
        while True:
            head, body = self._packet()
            if head & 0xF0 == _PUBLISH:
                self.received.append(body[2 : 2 + int.from_bytes(body[:2], "big")].decode("utf-8", "replace"))
            elif head == _DISCONNECT:
                raise ClosedByBroker(f"it disconnected with the reason code 0x{body[0] if body else 0:02X}")
            elif head == kind and body.startswith(mid):
                return body
            else:
                raise ClosedByBroker("its answer is not the one of MQTT 5")

    def _packet(self) -> tuple[int, bytes]:
        head = self._bytes(1)[0]
        length = shift = 0
        while True:
            part = self._bytes(1)[0]
            length |= (part & 0x7F) << shift
            shift += 7
            if part < 0x80:
                break
            if shift > 21:
                raise ClosedByBroker("its answer is not MQTT 5")
        if length > _MOST_BYTES:
            raise ClosedByBroker("its answer is too long")
        return head, self._bytes(length)

    def _bytes(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            part = self._connection.recv(count - len(got))
            if not part:
                raise ClosedByBroker("the connection was closed without an answer")
            got += part
        return got


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _length(number: int) -> bytes:
    """Return a variable byte integer (MQTT 5 section 1.5.5)."""
    encoded = bytearray()
    while True:
        number, part = divmod(number, 128)
        encoded.append(part | (0x80 if number else 0))
        if not number:
            return bytes(encoded)
