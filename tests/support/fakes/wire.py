"""A small MQTT broker in memory with persistent sessions and QoS 1, and the faults that a real one can have."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from broker.contract.trace_context import TraceContext
from broker.mqtt.broker_limits import MAX_PACKET_BYTES
from broker.mqtt.delivery import Delivery


@dataclass
class _Session:
    filters: list[str]
    queue: list[Delivery] = field(default_factory=list)
    unacknowledged: dict[int, Delivery] = field(default_factory=dict)
    last_mid: int = 0


class FakeBroker:
    """Keeps what was published for each session until it is acknowledged, unless a fault loses it."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._retained: dict[str, bytes] = {}
        self.heard: list[tuple[str, bytes]] = []
        self._saved: tuple[dict[str, _Session], dict[str, bytes]] = {}, {}

    def connect(self, client_id: str, filters: list[str], will: tuple[str, bytes] | None = None) -> "FakeConnection":
        """Take the session up again, or begin it; what was not acknowledged comes again, marked as a duplicate."""
        if client_id not in self._sessions:
            self._sessions[client_id] = _Session(filters)
        session = self._sessions[client_id]
        again = [msgspec.structs.replace(delivery, duplicate=True) for delivery in session.unacknowledged.values()]
        session.queue[:0] = again
        session.unacknowledged.clear()
        for topic, payload in self._retained.items():
            self._offer(session, topic, payload, retained=True)
        return FakeConnection(self, session, will)

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: TraceContext | None = None) -> None:
        self.heard.append((topic, payload))
        if retain:
            self._retained[topic] = payload
        for session in self._sessions.values():
            self._offer(session, topic, payload, retained=False, trace=trace)

    def lose_data(self) -> None:
        """Forget every session's queue and all retained messages, as after a kill without persistence."""
        self._retained.clear()
        for session in self._sessions.values():
            session.queue.clear()
            session.unacknowledged.clear()

    def save(self) -> None:
        """Write everything to the disk, as Mosquitto does each `autosave_interval`."""
        self._saved = copy.deepcopy((self._sessions, self._retained))

    def go_back(self) -> None:
        """Be killed, and start with what was saved last. Each connection must be made again."""
        self._sessions, self._retained = copy.deepcopy(self._saved)

    def repeat_session(self, client_id: str, count: int) -> None:
        """Deliver the last messages for a session once more, as a bridge that was connected twice does."""
        for topic, payload in self.heard[-count:]:
            self._offer(self._sessions[client_id], topic, payload, retained=False)

    def lose_one(self, client_id: str, place: int) -> None:
        """Forget the message at this place of a session's queue, if there is one."""
        del self._sessions[client_id].queue[place : place + 1]

    def repeat_one(self, client_id: str, place: int) -> None:
        """Deliver the message at this place of a session's queue a second time, behind all others."""
        session = self._sessions[client_id]
        for twin in session.queue[place : place + 1]:
            self._offer(session, twin.topic, twin.payload, twin.retained, twin.trace)

    @staticmethod
    def _offer(
        session: _Session, topic: str, payload: bytes, retained: bool, trace: TraceContext | None = None
    ) -> None:
        if any(_matches(pattern, topic) for pattern in session.filters):
            session.last_mid += 1
            session.queue.append(Delivery(topic, payload, retained, False, session.last_mid, 0, trace))


class FakeConnection:
    """One connection to the fake broker; `cut` ends it without a word, and the broker publishes its will."""

    def __init__(self, broker: FakeBroker, session: _Session, will: tuple[str, bytes] | None) -> None:
        self._broker = broker
        self._session = session
        self._will = will
        self.connected = True
        self.backlog = 0
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.backlog_bytes = 0

    def drain(self, timeout_s: float = 0.0) -> list[Delivery]:
        if not self.connected:
            return []
        taken, self._session.queue[:] = self._session.queue[:], []
        self._session.unacknowledged.update({delivery.mid: delivery for delivery in taken})
        return taken

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        if self.connected:
            for delivery in deliveries:
                self._session.unacknowledged.pop(delivery.mid, None)

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes - 64

    filled_payload_bytes = max_payload_bytes

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: TraceContext | None = None) -> bool:
        if self.connected:
            self._broker.publish(topic, payload, retain, trace)
        return self.connected

    def readiness_problem(self) -> str | None:
        return None if self.connected else "there is no connection to the broker"

    def cut(self, *, is_broker_dead: bool = False) -> None:
        if self.connected:
            self.connected = False
            if self._will is not None and not is_broker_dead:
                self._broker.publish(*self._will, retain=True)


def _matches(pattern: str, topic: str) -> bool:
    wanted, given = pattern.split("/"), topic.split("/")
    return len(wanted) == len(given) and all(a in ("+", b) for a, b in zip(wanted, given, strict=True))
