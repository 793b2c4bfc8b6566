"""One MQTT 5 connection with manual acknowledgement: the only module that imports paho."""

import queue
import socket
import ssl
import sys
import threading
import time
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

from broker.mqtt.address import MqttError, TlsFiles, parse_url
from broker.mqtt.delivery import Delivery

__all__ = [
    "MAX_PACKET_BYTES",
    "MqttConnection",
]


MAX_PACKET_BYTES = 262144 + 4096
_KEEPALIVE_S = 30
_RECEIVE_MAXIMUM = 1000
_MAX_IN_FLIGHT = 20  # the Receive Maximum that Mosquitto grants by default (MQTT 5 section 3.3.4)
_MAX_OUTGOING = 10_000
_MAX_WAITING = 1000
_WATCH_S = 1.0
_WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, identifier=4)
_log = structlog.get_logger("acm.mqtt")


class MqttConnection:
    """Keeps one client connected, fills an inbox, and sends at QoS 1 without ever blocking.

    Reconnects by itself, after 1 to 30 seconds, and subscribes again each time. What was sent but not
    acknowledged when a connection ends is forgotten: every sender of ours sends again. `on_connect` runs in the
    network thread after each connect; publish the retained status from it. `connections` counts the connections
    made and `last_error` says in words why the last one failed or ended.

    `tls` is used by an mqtts URL alone; without it the system's certificate authorities are trusted and no certificate
    is shown. Its files are read again before each connection. The broker's host name is always checked.
    After `stop` it can be started again.
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
        self._context = _tls_context(tls) if self._address.tls else None
        self._subscriptions = [(topic, SubscribeOptions(qos=1)) for topic in subscriptions]
        self._hook = on_connect
        self._inbox: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._changing = threading.Lock()
        self._connected = False
        self._started = False
        self._refused = False
        self._answered = False
        self._ended = False
        self._ready = threading.Event()
        self._new_client = partial(self._make_client, client_id, will, clean_start, session_expiry_s)
        self._client = self._new_client()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client and the connection has not been lost since."""
        return self._connected

    @property
    def backlog(self) -> int:
        """How many published messages the broker has not confirmed yet."""
        return len(self._client._out_messages)

    def start(self) -> None:
        """Start the network thread and return at once, connected or not."""
        with self._changing:
            if self._ended:
                self._connected = self._ended = False
                self._client = self._new_client()
            self._started = True
            self._client.loop_start()

    def stop(self, timeout_s: float = 3.0, *, last_will: bool = False) -> None:
        """Send what was published, disconnect and end the network thread within the bound.

        The broker publishes the last will only if asked to (MQTT 5 section 3.14.2.1).
        """
        with self._changing:
            self._stop(timeout_s, _WITH_WILL if last_will else None)
        self.wake()

    def _stop(self, timeout_s: float, reason: ReasonCode | None) -> None:
        self._started, self._ended = False, True
        self._client.disconnect(reason)
        # loop_stop joins without a bound, and a broker that hangs would hold it for ever.
        stopper = threading.Thread(target=self._client.loop_stop, name="mqtt-stop", daemon=True)
        stopper.start()
        stopper.join(timeout_s)
        if stopper.is_alive():
            _log.warning("mqtt_stop_unfinished", timeout_s=timeout_s)
            self._break_socket()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the broker has accepted the client and its subscriptions; return whether it has."""
        return self._ready.wait(timeout_s)

    def readiness_problem(self) -> str | None:
        """Return what the connection that there is has not shown yet, to go on after a colon.

        None: the broker has accepted the subscriptions and acknowledged (PUBACK) something that was published.
        """
        error = self.last_error
        why = f" ({error.rstrip('.')})" if error else ""
        if not self._ready.is_set():
            return f"there is no connection to the broker{why}"
        if self._refused:
            return f"the broker refused a subscription{why}"
        return None if self._answered else f"the broker has acknowledged nothing that was published{why}"

    def drain(self, timeout_s: float, limit: int = 500) -> list[Delivery]:
        """Wait for a message, then take what is there, at most `limit`; nothing after a wake."""
        deliveries: list[Delivery] = []
        first = self._wait_for_first(timeout_s)
        while first is not None:
            deliveries.append(first)
            if len(deliveries) >= limit:
                break
            try:
                first = self._inbox.get_nowait()
            except queue.Empty:
                break
        return deliveries

    def wake(self) -> None:
        """End a wait in `drain` early, from any thread."""
        self._inbox.put(None)

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Send the PUBACKs. Those of an earlier connection are dropped: their ids now mean others."""
        with self._lock:
            for delivery in deliveries:
                if self._connected and delivery.mid and delivery.connection == self.connections:
                    self._client.ack(delivery.mid, 1)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> bool:
        """Hand a message over at QoS 1, never blocking.

        False means dropped (no connection, too long, too much unsent): send it again. True is no promise.
        """
        if len(payload) + len(topic) > MAX_PACKET_BYTES - 64:
            _log.error("mqtt_message_too_long", topic=topic, bytes=len(payload))
            return False
        if not self._connected:
            return False
        return self._client.publish(topic, payload, qos=1, retain=retain).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _make_client(
        self, client_id: str, will: tuple[str, bytes] | None, clean_start: bool, session_expiry_s: int
    ) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True)
        client.suppress_exceptions = True
        client.reconnect_delay_set(1, 30)
        client.max_inflight_messages_set(_MAX_IN_FLIGHT)
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
            keepalive=_KEEPALIVE_S,
            clean_start=clean_start,
            properties=_connect_properties(session_expiry_s),
        )
        return client

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        # An exception out of a callback would end paho's thread without a word.
        def safe(client: Client, *arguments: Any) -> None:
            if client is not self._client:
                return  # it was stopped, did not end in time, and speaks for a connection of the past
            try:
                callback(client, *arguments)
            except Exception as error:
                self.last_error = f"{type(error).__name__}: {error}"
                _log.exception("mqtt_callback_failed", callback=callback.__name__)

        return safe

    def _before_connect(self, client: Client, userdata: object) -> None:
        # paho would send all that is left at once, past the broker's Receive Maximum, and be thrown out.
        with client._out_message_mutex:
            client._out_messages.clear()
        if self._context is not None and self.tls is not None:
            _load(self._context, self.tls)

    def _after_connect(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties
    ) -> None:
        if reason.is_failure:
            self.last_error = str(reason)
            _log.warning("mqtt_connection_refused", reason=self.last_error)
            return
        with self._lock:
            self.connections += 1
            self._connected = True
            self._answered = False
        self.last_error = None
        _log.info("mqtt_connected", connection=self.connections, session_present=flags.session_present)
        if self._subscriptions:
            client.subscribe(self._subscriptions)
        else:
            self._ready.set()
        if self._hook is not None:
            self._hook()

    def _after_failure(self, client: Client, userdata: object) -> None:
        # paho calls this while it handles the error, and does not hand it over.
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
            self.last_error = "The broker closed the connection before it had accepted this client."

    def _after_subscribe(
        self, client: Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: Properties
    ) -> None:
        answers = zip(self._subscriptions, reasons, strict=False)
        refused = [f"{topic}: {reason}" for (topic, _), reason in answers if reason.is_failure]
        self._refused = bool(refused)
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
            self._answered = True

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        # The receive maximum bounds QoS 1; nothing but this bounds QoS 0.
        if message.qos == 0 and self._inbox.qsize() >= _MAX_WAITING:
            return
        mid = message.mid if message.qos else 0
        self._inbox.put(
            Delivery(message.topic, bytes(message.payload), message.retain, message.dup, mid, self.connections)
        )

    def _wait_for_first(self, timeout_s: float) -> Delivery | None:
        deadline = time.monotonic() + timeout_s
        while True:
            self._watch_thread()
            left = deadline - time.monotonic()
            try:
                return self._inbox.get(timeout=max(0.0, min(left, _WATCH_S)))
            except queue.Empty:
                if left <= _WATCH_S:
                    return None

    def _watch_thread(self) -> None:
        if not self._changing.acquire(blocking=False):
            return  # it is being started or stopped
        try:
            # loop_start does nothing while its thread lives.
            if self._started and self._client.loop_start() == MQTTErrorCode.MQTT_ERR_SUCCESS:
                _log.error("mqtt_network_thread_restarted")
                self._break_socket()
        finally:
            self._changing.release()

    def _break_socket(self) -> None:
        open_socket = self._client.socket()
        if isinstance(open_socket, socket.socket):
            try:
                open_socket.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                _log.debug("mqtt_socket_already_closed", error=str(error))


def _tls_context(tls: TlsFiles | None) -> ssl.SSLContext:
    if tls is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _load(context, tls)
    except OSError as error:
        raise MqttError(f"The TLS files in {tls.certificate.parent} cannot be used: {error}.") from error
    return context


def _load(context: ssl.SSLContext, tls: TlsFiles) -> None:
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.certificate, tls.key)


def _connect_properties(session_expiry_s: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_expiry_s
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def _set_nodelay(client: Client, userdata: object, opened: socket.socket) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
