"""One MQTT 5 connection with manual acknowledgement, which reconnects, and tells what is wrong with it."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

import structlog

from broker.contract.trace_context import TraceContext
from broker.mqtt import failures
from broker.mqtt.address import MqttError, TlsFiles, parse_url
from broker.mqtt.broker_limits import BrokerLimits, property_bytes
from broker.mqtt.client_events import ClientSession, Message
from broker.mqtt.connection_log import ConnectionLog
from broker.mqtt.delivery import Delivery, DeliveryQueue
from broker.mqtt.hearing import Hearing
from broker.mqtt.paho_client import PahoClient
from broker.mqtt.publish_refusals import PublishRefusals
from broker.mqtt.reconnect_policy import End, ReconnectPolicy
from broker.mqtt.subscriptions import Subscriptions
from broker.mqtt.tls import NewContextEachTime, client_context

__all__ = [
    "MqttConnection",
]


_log = structlog.get_logger("acm.mqtt")
_TAKEOVER_SHOWN_S = 600.0


class MqttConnection:
    """An MQTT 5 client that stays connected, queues what it receives, and publishes at QoS 1 without blocking.

    Reconnects after growing, random waits and subscribes again each time. Messages that the broker has not acknowledged
    when a connection ends are dropped: each sender resends. `on_connect` runs in the network thread after each connect;
    publish the retained status from it. `connections` counts the connections so far; `last_error` is why the last one
    failed or ended. Call `drain` at least every few seconds: it also repeats what the broker refused, and watches the
    network thread.

    `tls` applies to an mqtts URL only; without it the client trusts the system's certificate authorities and has no
    certificate. The files are read again before each connection. The broker's host name is always verified.
    `drain_reads`: the thread that drains reads the socket itself, which saves waking two threads for each message, but
    messages that wait for the answer to earlier ones are sent no sooner than it drains or is away for a second.
    `stop` and `start` may alternate. Raises MqttError for an invalid URL or TLS files that cannot be used.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        clean_start: bool = False,
        session_expiry_s: int = 7 * 86400,
        will: tuple[str, Callable[[], bytes]] | None = None,
        subscriptions: Sequence[str] = (),
        on_connect: Callable[[], None] | None = None,
        tls: TlsFiles | None = None,
        drain_reads: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connections = 0
        self.last_error: str | None = None
        self.tls = tls
        self._monotonic = monotonic
        self._address = parse_url(url)
        self._session = ClientSession(client_id, clean_start, session_expiry_s, will)
        self._context = NewContextEachTime.of(lambda: self.tls) if self._address.tls else None
        self._subscriptions = Subscriptions(subscriptions, monotonic)
        self._refusals = PublishRefusals(monotonic)
        self._policy = ReconnectPolicy(monotonic)
        self._log = ConnectionLog(self._address.text, monotonic)
        self._on_connect = on_connect
        self._drain_reads = drain_reads
        self._received = DeliveryQueue()
        self._hearing = Hearing(monotonic)
        self._lock = threading.RLock()
        self._changing = threading.Lock()
        self._connected = False
        self._started = False
        self._stopped = False
        self._publish_confirmed = False
        self._taken_over: tuple[float, str] | None = None
        self._ready = threading.Event()
        self._client = self._new_client()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client, and the connection is not known to be lost."""
        return self._connected

    @property
    def summary(self) -> str:
        """Whether it is connected, or why not, in one sentence."""
        return "Connected to the broker." if self._connected else self.last_error or "Connecting."

    @property
    def quiet_s(self) -> float:
        """For how many seconds nothing has arrived on the connection that stands; 0 without one."""
        return self._hearing.quiet_s if self._connected else 0.0

    @property
    def backlog(self) -> int:
        """How many published messages the broker has not acknowledged yet, or were not sent at QoS 0."""
        return self._client.backlog

    @property
    def problem(self) -> str | None:
        """What is wrong with a connection that stands, in whole sentences; None if nothing is."""
        taken_over = self._taken_over
        if taken_over is not None and self._monotonic() > taken_over[0] + _TAKEOVER_SHOWN_S:
            taken_over = self._taken_over = None
        shortcomings = self._client.limits.shortcomings(self._session.expiry_s)
        sentences = (taken_over and taken_over[1], self._subscriptions.problem, self._refusals.problem, *shortcomings)
        return " ".join(sentence for sentence in sentences if sentence) or None

    @property
    def backlog_bytes(self) -> int:
        """How long the payloads of these messages are together."""
        return self._client.backlog_bytes

    def start(self) -> None:
        """Start the network thread; returns at once, connected or not."""
        with self._changing:
            if self._stopped:
                self._connected = self._stopped = False
                self._client.detach()
                self._client = self._new_client()
            self._started = True
            self._client.start()

    def stop(self, timeout_s: float = 3.0, *, last_will: bool = False) -> None:
        """Send what was published, disconnect, and end the network thread, within the timeout.

        `last_will` asks the broker to publish the last will (MQTT 5 section 3.14.2.1).
        """
        with self._changing:
            self._started, self._stopped = False, True
            self._client.stop(timeout_s, last_will=last_will)
        self.wake()

    def reconnect(self) -> None:
        """Read the TLS files and connect again; if they cannot be used, log it and keep the connection."""
        try:
            if self._context is not None:
                client_context(self.tls)
        except MqttError as error:
            _log.error("certificate_not_reloaded", reason=str(error))
            return
        self.stop()
        self.start()

    def abandon_if_deaf(self, expected: Callable[[], bool] = lambda: True) -> None:
        """Connect again if nothing has arrived for ten minutes, although something was `expected`."""
        # design.md: "Who expects an answer asks, and judges by it."
        quiet_s = self.quiet_s
        if self._connected and self._hearing.is_deaf(expected):
            self._client.abandon(f"nothing has arrived for {quiet_s:.0f} s, although answers were due")

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
        if self._subscriptions.problem:
            return f"the broker refused a subscription{why}"
        return None if self._publish_confirmed else f"the broker has acknowledged nothing that was published{why}"

    def drain(self, timeout_s: float, limit: int = 500) -> list[Delivery]:
        """Wait for a message, then return those received, at most `limit`; empty after a wake."""
        self._client.flush()
        return self._received.drain(timeout_s, limit, self._maintain, self._work)

    def _work(self, timeout_s: float, is_idle: Callable[[], bool]) -> bool:
        return self._drain_reads and self._client.work(timeout_s, is_idle)

    def wake(self) -> None:
        """End a wait in `drain` early, from any thread."""
        self._received.wake()
        self._client.interrupt()

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Send the PUBACKs, at the latest with the next `drain`.

        Those of an earlier connection are dropped: their packet ids may be in use again.
        """
        with self._lock:
            mids = [it.mid for it in deliveries if it.mid and it.connection == self.connections]
            if mids and self._connected:
                self._client.acknowledge(mids)

    @property
    def max_packet_bytes(self) -> int:
        """The length of the longest packet that the broker takes; it may change with each connection."""
        return self._client.limits.packet_bytes

    def max_payload_bytes(self, topic: str) -> int:
        """Return the length of the longest payload that can be published on this topic.

        A longer one would end the connection (MQTT 5 section 3.2.2.3.6).
        """
        return self._client.limits.payload_bytes(topic)

    def filled_payload_bytes(self, topic: str) -> int:
        """Return how long to make a payload that can be divided: less than the above, if that is not known exactly."""
        return self._client.limits.filled_payload_bytes(topic)

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: TraceContext | None = None) -> bool:
        """Queue a message for sending at QoS 1, without blocking, with a context for its receiver if it has room.

        False if it was dropped (no connection, too long, queue full): resend it. True does not mean delivered.
        """
        room = self.max_payload_bytes(topic)
        if len(payload) > room:
            self._refusals.too_long(topic, len(payload), room)
            return False
        if trace is not None and len(payload) + property_bytes(trace.pairs()) > room:
            trace = None
        return self._connected and self._client.publish(topic, payload, retain=retain, trace=trace)

    # -- the events of the network thread (broker.mqtt.client_events.Events)

    def accepted(self, limits: BrokerLimits, *, session_present: bool) -> None:
        """Subscribe, then call `on_connect`, then log."""
        with self._lock:
            self.connections += 1
            self._connected = True
            self._hearing.begin()
            self._publish_confirmed = False
        self.last_error = None
        self._refusals.clear()
        self._policy.connected()
        # Nothing that can fail comes before the SUBSCRIBE: without it the connection would look healthy, but be deaf.
        topics = self._subscriptions.begin(wildcards=limits.wildcards)
        if topics:
            self._client.subscribe(topics)
        else:
            self._ready.set()
        if self._on_connect is not None:
            self._on_connect()
        self._log.connected(self.connections, session_present=session_present, slow=self._client.slow)
        self._log.lacks(limits.shortcomings(self._session.expiry_s))

    def not_accepted(self, reason: str) -> None:
        """Schedule the next attempt."""
        if self._ended():
            self.last_error = f"No connection to {self._address.text}: {reason}."
            self._log.failed(reason, self._wait(End.UNREACHED))

    def lost(self, code: int | None, reason: str, *, abandoned: bool) -> None:
        """Schedule the next connection; wait longer where another client seems to use the same name."""
        if not self._ended():
            return
        refused = self._subscriptions.problem
        if code is None and refused:  # some brokers refuse by an answer and then close
            reason = f"{reason}, after this: {refused.rstrip('.')}"
        end = End.ABANDONED if abandoned else End.EXPLAINED if refused and code is None else End.of(code)
        wait_s = self._wait(end)
        another = failures.ANOTHER_CLIENT.format(name=self._session.client_id)
        if end is End.CLOSED and self._policy.suspects_another_client:
            reason = f"the connection ends within seconds again and again ({reason}); probably {another}"
        self.last_error = f"The connection was lost: {reason}."
        if another in reason:
            self._taken_over = (self._monotonic(), self.last_error)
        self._log.lost(reason, wait_s)

    def subscribed(self, failures: Sequence[str | None]) -> None:
        """Note which subscriptions were refused: they are repeated."""
        try:
            self._subscriptions.answered(failures)
        finally:
            self.last_error = self._subscriptions.problem or self.last_error
            self._ready.set()

    def published(self, topic: str, failure: str | None) -> None:
        """Note whether a message was refused."""
        if failure is None:
            self._publish_confirmed = True
            self._refusals.confirmed(topic)
        else:
            self.last_error = f"The broker refused a message on {topic}: {failure}."
            self._refusals.refused(topic, failure)

    def received(self, messages: Sequence[Message]) -> None:
        """Queue messages."""
        if not all(message.retain for message in messages):
            self._hearing.heard()
        number = self.connections
        self._received.put(
            [Delivery(it.topic, it.payload, it.retain, it.dup, it.mid, number, it.trace) for it in messages]
        )

    def failed(self, error: Exception) -> None:
        """Note an error of `on_connect`, or of this class."""
        self.last_error = f"{type(error).__name__}: {error}"

    def _ended(self) -> bool:
        """Note that no connection stands; return whether it is to be made again."""
        with self._lock:
            self._connected = False
        self._ready.clear()
        return self._started

    def _wait(self, end: End) -> float:
        wait_s = self._policy.wait_after(end)
        self._client.reconnect_in(wait_s)
        return wait_s

    def _new_client(self) -> PahoClient:
        return PahoClient(self._address, self._session, self._context, self, self._monotonic)

    def _maintain(self) -> None:
        if not self._changing.acquire(blocking=False):
            return  # it is being started or stopped
        try:
            if self._started:
                self._keep_thread()
                self._end_unanswered()
                if self._connected and (topics := self._subscriptions.take_due()):
                    self._client.subscribe(topics)
        finally:
            self._changing.release()

    def _keep_thread(self) -> None:
        try:
            self._client.ensure_running()
        except RuntimeError as error:  # try again at the next call; what this program does otherwise needs no thread
            self._ended()
            self.last_error = f"The connection has no thread: {error}."
            self._log.failed(str(error), 0.0)

    def _end_unanswered(self) -> None:
        # design.md: "A connection is judged by its answers, not by its pings."
        reason = self._client.unanswered
        if reason is not None:
            self._client.abandon(reason)
