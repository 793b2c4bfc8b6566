"""paho's MQTT 5 client behind a small interface; this and `packet_batches` alone import paho, and its private parts."""

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker.contract.trace_context import TraceContext
from broker.mqtt import failures
from broker.mqtt.address import BrokerAddress
from broker.mqtt.broker_limits import KEEPALIVE_S, MAX_PACKET_BYTES, BrokerLimits, packet_bytes, property_bytes
from broker.mqtt.client_events import ClientSession, Events, Message
from broker.mqtt.network_thread import break_connection, ensure_running, stop_within
from broker.mqtt.packet_batches import PacketBatches, missing
from broker.mqtt.paho_errors import PahoErrors
from broker.mqtt.reason_codes import PACKET_TOO_LARGE, UNSPECIFIED_ERROR, list_codes
from broker.mqtt.unanswered import Unanswered

__all__ = ["PahoClient"]


_RECEIVE_MAXIMUM = 1000
_MAX_OUTGOING = 10_000
_SHORTEST_LIMIT = 4096  # a status needs about as much
_WITH_WILL = ReasonCode(PacketTypes.DISCONNECT, identifier=4)
_PUBLISH = PacketTypes.PUBLISH
_RETAIN_NOT_SUPPORTED, _QOS_NOT_SUPPORTED = 0x9A, 0x9B
_log = structlog.get_logger("acm.mqtt")


class _Client(Client):
    """paho's client, with a wait before it connects again that ends at once when it is stopped.

    It notes each packet that it sends or receives in `unanswered`. `codes` are the reason codes of the packet that is
    being handled, as they were sent; paho gets those that it knows.
    """

    pause: Callable[[], object]
    unanswered: Unanswered
    codes: bytes = b""

    def _packet_queue(
        self, command: int, packet: bytes | bytearray, mid: int, qos: int, info: MQTTMessageInfo | None = None
    ) -> MQTTErrorCode:
        if qos or command >> 4 != _PUBLISH:  # a message at QoS 0 has no answer
            self.unanswered.sent(command >> 4, mid)
        return super()._packet_queue(command, packet, mid, qos, info)

    def _packet_handle(self) -> MQTTErrorCode:
        command, packet = self._in_packet["command"], self._in_packet["packet"]
        self.unanswered.answered(command >> 4, int.from_bytes(packet[:2], "big"))
        self.codes = list_codes(command, packet)
        return super()._packet_handle()

    def _reconnect_wait(self) -> None:
        self.pause()

    def loop_start(self) -> MQTTErrorCode:
        try:
            return super().loop_start()
        except RuntimeError:  # paho would take the thread that did not start for one that runs
            self._thread = None
            for end in (self._sockpairR, self._sockpairW):
                if end is not None:
                    end.close()
            raise


class _BatchingClient(_Client, PacketBatches):
    """The same, with many packets at once."""


class _StockClient(_Client):
    """The same without: what `PacketBatches` adds, by paho's own means."""

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Send the PUBACKs."""
        for mid in mids:
            self.ack(mid, 1)

    def flush(self) -> None:
        """Write what is queued: the network thread has been woken to do it."""

    def work(self, timeout_s: float, is_idle: Callable[[], bool]) -> bool:
        """Return that the network thread does its work itself."""
        return False

    def interrupt(self) -> None:
        """End the wait of a thread in `work`: there is none."""


class PahoClient:
    """One paho client with its network thread; it reconnects by itself, after the wait that `reconnect_in` sets.

    `slow` is why packets are handled one by one; None if they are not.
    """

    def __init__(
        self,
        address: BrokerAddress,
        session: ClientSession,
        context: ssl.SSLContext | None,
        events: Events,
        monotonic: Callable[[], float],
    ) -> None:
        self._session = session
        self._events = events
        self._errors = PahoErrors(self._packet)
        self._unanswered = Unanswered(monotonic)
        self._tls = context is not None
        self._stopping = threading.Event()
        self._wait_s = 1.0
        self._refusal: str | None = None
        self._abandoned: failures.Abandoned | None = None
        self._accepted = False
        self._detached = False
        self.limits = BrokerLimits()
        self._refused_bytes: int | None = None
        self._will_fits = True
        self._client = self._make(address, context)

    @property
    def backlog(self) -> int:
        """How many published messages the broker has not acknowledged yet, or were not sent at QoS 0."""
        unsent = 0 if self.limits.max_qos else len(self._client._out_packet)
        return len(self._client._out_messages) + unsent

    @property
    def backlog_bytes(self) -> int:
        """How long the payloads of these messages are together, in bytes."""
        client = self._client
        with client._out_message_mutex:
            acknowledged_later = sum(len(message.payload) for message in client._out_messages.values())
        unsent = () if self.limits.max_qos else tuple(client._out_packet)
        return acknowledged_later + sum(len(packet["packet"]) for packet in unsent)

    def start(self) -> None:
        """Start the network thread."""
        self._client.loop_start()

    def stop(self, timeout_s: float, *, last_will: bool) -> None:
        """Send what was published, disconnect, and end the network thread, within the timeout."""
        self._client.disconnect(_WITH_WILL if last_will else None)
        self._stopping.set()
        stop_within(self._client, timeout_s)

    def detach(self) -> None:
        """Report nothing any more: the network thread may have outlived the timeout of `stop`."""
        self._detached = True

    @property
    def unanswered(self) -> str | None:
        """What the broker should have answered by now, as the part of a sentence after a colon; None if nothing."""
        return self._unanswered.problem

    def ensure_running(self) -> None:
        """Restart the network thread if it has died; raises RuntimeError if the machine has no thread for it."""
        ensure_running(self._client)

    def abandon(self, reason: str) -> None:
        """End the present connection, or the present attempt, for this reason."""
        self._abandoned = failures.Abandoned(reason)
        self._unanswered.clear()
        break_connection(self._client)

    def reconnect_in(self, wait_s: float) -> None:
        """Set the wait before the next attempt."""
        self._wait_s = wait_s

    def subscribe(self, topics: Sequence[str]) -> None:
        """Send a SUBSCRIBE for these topic filters."""
        self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Send the PUBACKs, at the latest with `flush`."""
        self._client.acknowledge(mids)

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it now."""
        self._client.flush()

    def work(self, timeout_s: float, is_idle: Callable[[], bool]) -> bool:
        """Do the network thread's work once in this thread, waiting at most `timeout_s`; False if that does it itself.

        Returns at once if not `is_idle`, asked when `interrupt` ends the wait already.
        """
        return self._client.work(timeout_s, is_idle)

    def interrupt(self) -> None:
        """End a wait in `work`, from any thread."""
        self._client.interrupt()

    def publish(self, topic: str, payload: bytes, *, retain: bool, trace: TraceContext | None = None) -> bool:
        """Queue a message, at the highest QoS up to 1 that the broker offers; return False if the queue is full."""
        limits = self.limits
        if limits.max_qos == 0 and self.backlog >= _MAX_OUTGOING:
            return False  # paho bounds only its queue for QoS 1
        properties = None if trace is None else _publish_properties(trace)
        sent = self._client.publish(topic, payload, limits.max_qos, retain and limits.retain, properties)
        return sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _make(self, address: BrokerAddress, context: ssl.SSLContext | None) -> _BatchingClient | _StockClient:
        client = self._new()
        client.unanswered = self._unanswered
        client.pause = lambda: self._stopping.wait(self._wait_s)
        client.suppress_exceptions = True
        client.enable_logger(self._errors)  # type: ignore[arg-type]
        client.max_queued_messages_set(_MAX_OUTGOING)
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        if context is not None:
            client.tls_set_context(context)
        client.on_socket_open = self._guard(_send_at_once)
        client.on_pre_connect = self._guard(self._on_pre_connect)
        client.on_connect = self._guard(self._on_connect)
        client.on_connect_fail = self._guard(self._on_connect_fail)
        client.on_disconnect = self._guard(self._on_disconnect)
        client.on_subscribe = self._guard(self._on_subscribe)
        client.on_publish = self._guard(self._on_publish)
        client.on_message = self._guard(lambda client, _, message: self._events.received([_plain(message)]))
        client.connect_async(
            address.host,
            address.port,
            keepalive=KEEPALIVE_S,
            clean_start=self._session.clean_start,
            properties=_connect_properties(self._session.expiry_s),
        )
        return client

    def _new(self) -> _BatchingClient | _StockClient:
        options = {"protocol": MQTTProtocolVersion.MQTTv5, "manual_ack": True}
        client = _BatchingClient(CallbackAPIVersion.VERSION2, self._session.client_id, **options)
        self.slow = missing(client)
        if self.slow is not None:
            return _StockClient(CallbackAPIVersion.VERSION2, self._session.client_id, **options)  # type: ignore[arg-type]
        client.on_batch = partial(self._guard(lambda _, messages: self._events.received(messages)), client)
        client.on_confirmed = partial(self._guard(self._on_confirmed), client)
        return client

    def _guard(self, callback: Callable[..., None]) -> Callable[..., None]:
        # An exception in a callback would end paho's thread silently.
        def safe(client: Client, *arguments: Any) -> None:
            if self._detached:
                return
            try:
                callback(client, *arguments)
            except Exception as error:
                self._events.failed(error)
                _log.exception("mqtt_callback_failed", callback=callback.__name__)

        return safe

    def _on_pre_connect(self, client: Client, userdata: object) -> None:
        # paho would resend all of it at once, exceed the broker's Receive Maximum, and be disconnected (0x93).
        with client._out_message_mutex:
            client._out_messages.clear()
        client._keepalive = KEEPALIVE_S
        self._errors.clear()
        self._unanswered.clear()
        self._refusal, self._abandoned, self._accepted = None, None, False
        if self._session.will is not None and self._will_fits:
            topic, content = self._session.will
            client.will_set(topic, content(), qos=self.limits.max_qos, retain=self.limits.retain)

    def _on_connect(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties
    ) -> None:
        if reason.is_failure:
            code = self._code(reason)
            self._refusal = failures.connack_reason(code, reason.getName(), properties)
            self._lower_limits(code)
            return
        self._accepted = True
        self._obey(client, BrokerLimits.from_connack(properties))
        self._events.accepted(self.limits, session_present=flags.session_present)

    def _obey(self, client: Client, limits: BrokerLimits) -> None:
        limits = replace(limits, will=self._will_fits)
        self.limits = limits if self._refused_bytes is None else limits.without(self._refused_bytes)
        client._max_inflight_messages = limits.in_flight  # paho's own setters refuse a connected client
        client._keepalive = limits.keepalive_s
        if limits.client_id is not None and not self._session.client_id:
            client._client_id = limits.client_id.encode()

    def _lower_limits(self, code: int) -> None:
        """Connect with a last will that the broker takes next time, or without one, if it refused this one."""
        if code == _QOS_NOT_SUPPORTED:
            self.limits = replace(self.limits, max_qos=0)
        elif code == _RETAIN_NOT_SUPPORTED:
            self.limits = replace(self.limits, retain=False)
        elif code == PACKET_TOO_LARGE:
            self._will_fits = False  # of a CONNECT, nothing else can be long
            self._client.will_clear()

    def _on_connect_fail(self, client: Client, userdata: object) -> None:
        # paho calls this in its exception handler, without passing the error.
        self._events.not_accepted(failures.connect_error(sys.exc_info()[1], tls=self._tls))

    def _on_disconnect(
        self, client: Client, userdata: object, flags: DisconnectFlags, reason: ReasonCode, properties: Properties
    ) -> None:
        accepted, self._accepted = self._accepted, False
        error, name = self._abandoned or self._errors.last, reason.getName()
        if not accepted:
            strange = self._errors.malformed or self._packet()
            self._events.not_accepted(self._refusal or failures.early_end(error, strange, tls=self._tls))
        elif flags.is_disconnect_packet_from_server:
            code = self._code(reason)
            if code == PACKET_TOO_LARGE:
                self._learn_limit(client)
            told = failures.disconnect_reason(code, name, properties, self._session.client_id)
            self._events.lost(code, told, abandoned=False)
        else:
            told = failures.lost_reason(name, error)
            self._events.lost(None, told, abandoned=self._abandoned is not None)

    def _learn_limit(self, client: Client) -> None:
        """Send no message again that is as long as the longest unanswered one: the broker announced no limit."""
        unanswered = client._out_messages.values()
        longest = max(map(_packet_bytes, unanswered), default=0)
        if longest > _SHORTEST_LIMIT:
            self._refused_bytes = longest

    def _code(self, reason: ReasonCode) -> int:
        """Return the only reason code of this packet as the broker has sent it; 0 may be omitted."""
        return self._client.codes[0] if self._client.codes else reason.value

    def _packet(self) -> bytes:
        """Return what has arrived of a packet and was not handled yet, without its length; empty if nothing has."""
        packet = self._client._in_packet
        return bytes([packet["command"], *packet["packet"]]) if packet["command"] else b""

    def _on_subscribe(
        self, client: Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: Properties
    ) -> None:
        codes = zip(self._client.codes, reasons, strict=True)
        self._events.subscribed([_failure(code, reason.getName()) for code, reason in codes])

    def _on_publish(
        self, client: Client, userdata: object, mid: int, reason: ReasonCode, properties: Properties
    ) -> None:
        message = client._out_messages.get(mid)
        topic = message.topic if message is not None else ""
        code = self._code(reason)
        if code == PACKET_TOO_LARGE and message is not None:
            self.limits = self.limits.without(_packet_bytes(message))
        self._events.published(topic, _failure(code, reason.getName()))

    def _on_confirmed(self, client: Client, mids: Sequence[int], topics: set[str]) -> None:
        self._unanswered.all_answered(PacketTypes.PUBACK, mids)
        for topic in topics:
            self._events.published(topic, None)


def _packet_bytes(message: MQTTMessage) -> int:
    return packet_bytes(message.topic, len(message.payload)) + property_bytes(_user_properties(message))


def _user_properties(message: MQTTMessage) -> Sequence[tuple[str, str]]:
    found: Sequence[tuple[str, str]] = getattr(message.properties, "UserProperty", ())
    return found


def _plain(message: MQTTMessage) -> Message:
    mid = message.mid if message.qos else 0
    trace = TraceContext.read(_user_properties(message))
    return Message(message.topic, bytes(message.payload), message.retain, message.dup, mid, trace)


def _send_at_once(client: Client, userdata: object, opened: socket.socket) -> None:
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _failure(code: int, name: str) -> str | None:
    return failures.reason_text(code, name) if code >= UNSPECIFIED_ERROR else None


def _publish_properties(trace: TraceContext) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = list(trace.pairs())
    return properties


def _connect_properties(session_expiry_s: int) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_expiry_s
    properties.ReceiveMaximum = _RECEIVE_MAXIMUM
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties
