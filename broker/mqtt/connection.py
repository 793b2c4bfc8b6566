"""One MQTT 5 connection with manual acknowledgement: the only module that imports paho."""

import socket
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.mqtt.address import TlsFiles, parse_url
from broker.mqtt.broker_limits import KEEPALIVE_S, MAX_PACKET_BYTES, BrokerLimits
from broker.mqtt.delivery import Delivery, DeliveryQueue
from broker.mqtt.network_thread import ensure_running, stop_within
from broker.mqtt.tls import client_context, load_files

__all__ = [
    "MqttConnection",
]


_RECEIVE_MAXIMUM = 1000
_MAX_OUTGOING = 10_000
_WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, identifier=4)
_log = structlog.get_logger("acm.mqtt")


class MqttConnection:
    """An MQTT 5 client that stays connected, queues what it receives, and publishes at QoS 1 without blocking.

    Reconnects after 1 to 30 seconds and subscribes again each time. Messages that the broker has not acknowledged when
    a connection ends are dropped: each sender resends. `on_connect` runs in the network thread after each connect;
    publish the retained status from it. `connections` counts the connections so far; `last_error` is why the last one
    failed or ended.

    `tls` applies to an mqtts URL only; without it the client trusts the system's certificate authorities and has no
    certificate. The files are read again before each connection. The broker's host name is always verified.
    `stop` and `start` may alternate. Raises MqttError for an invalid URL or TLS files that cannot be used.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        clean_start: bool = False,
        session_expiry_s: int = 7 * 86400,
        will: tuple[str, bytes] | None = None,
        subscriptions: Sequence[str] = (),
        on_connect: Callable[[], None] | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.connections = 0
        self.last_error: str | None = None
        self.tls = tls
        self._address = parse_url(url)
        self._limits = BrokerLimits()
        self._context = client_context(tls) if self._address.tls else None
        self._subscriptions = [(topic, SubscribeOptions(qos=1)) for topic in subscriptions]
        self._on_connect = on_connect
        self._received = DeliveryQueue()
        self._lock = threading.RLock()
        self._changing = threading.Lock()
        self._connected = False
        self._started = False
        self._stopped = False
        self._subscription_refused = False
        self._publish_confirmed = False
        self._ready = threading.Event()
        self._new_client = partial(self._make_client, client_id, will, clean_start, session_expiry_s)
        self._client = self._new_client()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client, and the connection is not known to be lost."""
        return self._connected

    @property
    def backlog(self) -> int:
        """How many published messages the broker has not acknowledged yet."""
        return len(self._client._out_messages)

    @property
    def backlog_bytes(self) -> int:
        """How long the payloads of these messages are together."""
        client = self._client
        with client._out_message_mutex:
            return sum(len(message.payload) for message in client._out_messages.values())

    def start(self) -> None:
        """Start the network thread; returns at once, connected or not."""
        with self._changing:
            if self._stopped:
                self._connected = self._stopped = False
                self._client = self._new_client()
            self._started = True
            self._client.loop_start()

    def stop(self, timeout_s: float = 3.0, *, last_will: bool = False) -> None:
        """Send what was published, disconnect, and end the network thread, within the timeout.

        `last_will` asks the broker to publish the last will (MQTT 5 section 3.14.2.1).
        """
        with self._changing:
            self._started, self._stopped = False, True
            self._client.disconnect(_WITH_WILL if last_will else None)
            stop_within(self._client, timeout_s)
        self.wake()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the broker has accepted the client and answered its subscriptions; return whether it has."""
        return self._ready.wait(timeout_s)

    def readiness_problem(self) -> str | None:
        """Return why the present connection is not ready, as the part of a sentence after a colon; None if it is.

        It is ready once the broker has accepted the subscriptions and acknowledged (PUBACK) a published message.
        """
        error = self.last_error
        why = f" ({error.rstrip('.')})" if error else ""
        if not self._ready.is_set():
            return f"there is no connection to the broker{why}"
        if self._subscription_refused:
            return f"the broker refused a subscription{why}"
        return None if self._publish_confirmed else f"the broker has acknowledged nothing that was published{why}"

    def drain(self, timeout_s: float, limit: int = 500) -> list[Delivery]:
        """Wait for a message, then return those received, at most `limit`; empty after a wake."""
        return self._received.drain(timeout_s, limit, self._watch_thread)

    def wake(self) -> None:
        """End a wait in `drain` early, from any thread."""
        self._received.wake()

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Send the PUBACKs. Those of an earlier connection are dropped: their packet ids may be in use again."""
        with self._lock:
            for delivery in deliveries:
                if self._connected and delivery.mid and delivery.connection == self.connections:
                    self._client.ack(delivery.mid, 1)

    @property
    def max_packet_bytes(self) -> int:
        """The length of the longest packet that the broker takes; it may change with each connection."""
        return self._limits.packet_bytes

    def max_payload_bytes(self, topic: str) -> int:
        """Return the length of the longest payload that can be published on this topic.

        A longer one would end the connection (MQTT 5 section 3.2.2.3.6).
        """
        return self._limits.payload_bytes(topic)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> bool:
        """Queue a message for sending at QoS 1, without blocking.

        False if it was dropped (no connection, too long, queue full): resend it. True does not mean delivered.
        """
        limits = self._limits
        if len(payload) > limits.payload_bytes(topic):
            _log.error("mqtt_message_too_long", topic=topic, bytes=len(payload), limit=limits.payload_bytes(topic))
            return False
        if not self._connected:
            return False
        sent = self._client.publish(topic, payload, qos=limits.max_qos, retain=retain and limits.retain)
        return sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _make_client(
        self, client_id: str, will: tuple[str, bytes] | None, clean_start: bool, session_expiry_s: int
    ) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
        client.suppress_exceptions = True
        client.reconnect_delay_set(1, 30)
        client.max_queued_messages_set(_MAX_OUTGOING)
        if self._address.username is not None:
            client.username_pw_set(self._address.username, self._address.password)
        if self._context is not None:
            client.tls_set_context(self._context)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        client.on_socket_open = self._guard(_set_nodelay)
        client.on_pre_connect = self._guard(self._before_connect)
        client.on_connect = self._guard(self._after_connect)
        client.on_connect_fail = self._guard(self._after_failure)
        client.on_disconnect = self._guard(self._after_disconnect)
        client.on_subscribe = self._guard(self._after_subscribe)
        client.on_publish = self._guard(self._after_publish)
        client.on_message = self._guard(self._on_message)
        client.connect_async(
            self._address.host,
            self._address.port,
            keepalive=KEEPALIVE_S,
            clean_start=clean_start,
            properties=_connect_properties(session_expiry_s),
        )
        return client

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        # An exception in a callback would end paho's thread silently.
        def safe(client: Client, *arguments: Any) -> None:
            if client is not self._client:
                return  # of a thread that outlived the timeout of `stop`
            try:
                callback(client, *arguments)
            except Exception as error:
                self.last_error = f"{type(error).__name__}: {error}"
                _log.exception("mqtt_callback_failed", callback=callback.__name__)

        return safe

    def _before_connect(self, client: Client, userdata: object) -> None:
        # paho would resend all of it at once, exceed the broker's Receive Maximum, and be disconnected (0x93).
        with client._out_message_mutex:
            client._out_messages.clear()
        if self._context is not None and self.tls is not None:
            load_files(self._context, self.tls)

    def _after_connect(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties
    ) -> None:
        if reason.is_failure:
            self.last_error = str(reason)
            _log.warning("mqtt_connection_refused", reason=self.last_error)
            return
        self._limits = BrokerLimits.from_connack(properties)
        client._max_inflight_messages = self._limits.in_flight  # paho's own setters refuse a connected client
        client._keepalive = self._limits.keepalive_s
        with self._lock:
            self.connections += 1
            self._connected = True
            self._publish_confirmed = False
        self.last_error = None
        _log.info("mqtt_connected", connection=self.connections, session_present=flags.session_present)
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        else:
            self._ready.set()
        if self._on_connect is not None:
            self._on_connect()

    def _after_failure(self, client: Client, userdata: object) -> None:
        # paho calls this in its exception handler, without passing the error.
        error = sys.exc_info()[1]
        reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or error
        self.last_error = f"No connection to {self._address.host}:{self._address.port}: {reason}."

    def _after_disconnect(
        self, client: Client, userdata: object, flags: DisconnectFlags, reason: ReasonCode, properties: Properties
    ) -> None:
        with self._lock:
            was_connected, self._connected = self._connected, False
        self._ready.clear()
        if not self._started:
            return
        if was_connected:
            self.last_error = str(reason)
            _log.warning("mqtt_connection_lost", reason=self.last_error)
        elif self.last_error is None:
            self.last_error = "The broker closed the connection before accepting this client."

    def _after_subscribe(
        self, client: Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: Properties
    ) -> None:
        answers = zip(self._subscriptions, reasons, strict=False)
        refused = [f"{topic}: {reason}" for (topic, _), reason in answers if reason.is_failure]
        self._subscription_refused = bool(refused)
        if refused:
            self.last_error = "The broker refused to subscribe " + ", ".join(refused)
            _log.error("mqtt_subscription_refused", refused=refused)
        self._ready.set()

    def _after_publish(
        self, client: Client, userdata: object, mid: int, reason: ReasonCode, properties: Properties
    ) -> None:
        if reason.is_failure:
            self.last_error = f"The broker refused a message: {reason}"
            _log.warning("mqtt_publish_refused", reason=str(reason))
        else:
            self._publish_confirmed = True

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        mid = message.mid if message.qos else 0
        payload = bytes(message.payload)
        self._received.put(Delivery(message.topic, payload, message.retain, message.dup, mid, self.connections))

    def _watch_thread(self) -> None:
        if not self._changing.acquire(blocking=False):
            return  # it is being started or stopped
        try:
            if self._started:
                ensure_running(self._client)
        finally:
            self._changing.release()


def _connect_properties(session_expiry_s: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_expiry_s
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def _set_nodelay(client: Client, userdata: object, opened: socket.socket) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
