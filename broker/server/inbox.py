"""Fair queueing of received messages: a short queue for each agent, processed in turn.

All agents share one connection, so messages of one agent must neither fill it nor be processed before the others had
their turn. A single busy agent gets the server's full capacity. One that sends more than the server can process is
ignored for a moment, so that the server's time goes into emptying the connection for the others.
"""  # design.md: "Agents are served in turn, without a rate limit."

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

import structlog

from broker.contract.topics import Channel, Topics
from broker.mqtt.delivery import Delivery
from broker.mqtt.inbound import Inbound, addressed
from broker.server.watch import ServerWatch
from broker.system.log_throttle import LogThrottle

__all__ = [
    "FairInbox",
]


_log = structlog.get_logger("acm.server")
_MAX_FRAMES = 400  # of one agent; the connection holds 1000 that are not acknowledged
_MAX_BYTES = 8 << 20
_IGNORED_S = 2.0
_STATUS_PAUSE_S = 0.2  # our agents publish no more often
_SLICE_FRAMES = 64
_SLICE_BYTES = 1 << 15
_BATCH_FRAMES = 500  # half of what the connection holds: while the broker has more, the other half waits here
_BATCH_BYTES = 1 << 19
_MAX_DRAINS = 20
_MAX_AGENTS = 10_000


class InboxConnection(Protocol):
    """The part of an MQTT connection that the inbox uses."""

    def drain(self, timeout_s: float) -> list[Delivery]:
        """Wait for a message, then return all that have arrived."""

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Send the PUBACKs."""


class _Queue:
    """One agent's messages, in order. Times are in monotonic seconds.

    Only its newest status is queued. It is never dropped, and is processed no sooner than `_STATUS_PAUSE_S` after the
    last; what was received after it waits behind it, since a status is only true beside what the agent sent before it.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Inbound] = {}
        self._bytes = 0
        self._next = 0
        self._status: int | None = None
        self._status_due = 0.0
        self._ignored_until = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def is_fresh(self, now: float) -> bool:
        """Whether the queue is in the state of a new one."""
        return not self._waiting and now >= max(self._status_due, self._ignored_until)

    def has_work(self, now: float) -> bool:
        """Whether `take` would return anything."""
        return bool(self._waiting) and not (now < self._status_due and next(iter(self._waiting)) == self._status)

    def put(self, message: Inbound, now: float) -> list[Inbound]:
        """Queue a message; return the messages that are dropped: this one, and all others if it finds no room."""
        if message.channel is Channel.STATUS:
            older = [] if self._status is None else [self._remove(self._status)]
            self._status = self._add(message)
            return older
        if now < self._ignored_until:
            return [message]
        if len(self._waiting) < _MAX_FRAMES and self._bytes + len(message.payload) <= _MAX_BYTES:
            self._add(message)
            return []
        self._ignored_until = now + _IGNORED_S
        return [*(self._remove(place) for place in [*self._waiting] if place != self._status), message]

    def take(self, now: float, most: int) -> list[Inbound]:
        """Take the next few messages."""
        taken: list[Inbound] = []
        bytes_left = _SLICE_BYTES
        for place in [*islice(self._waiting, most)]:
            if bytes_left <= 0:
                break
            if place == self._status:
                if now < self._status_due:
                    break
                self._status_due = now + _STATUS_PAUSE_S
            taken.append(self._remove(place))
            bytes_left -= len(taken[-1].payload)
        return taken

    def _add(self, message: Inbound) -> int:
        self._next += 1
        self._waiting[self._next] = message
        self._bytes += len(message.payload)
        return self._next

    def _remove(self, place: int) -> Inbound:
        message = self._waiting.pop(place)
        self._bytes -= len(message.payload)
        if place == self._status:
            self._status = None
        return message


class FairInbox:
    """Takes all messages off the connection, and returns them in fair batches.

    Messages that find no room are dropped and acknowledged. Nothing is lost: agents resend results until they are
    acked, the server resends commands, and an agent's newest status always finds room.
    """

    def __init__(
        self,
        inbox: InboxConnection,
        topics: Topics,
        monotonic: Callable[[], float],
        watch: ServerWatch | None = None,
    ) -> None:
        self._inbox = inbox
        self._watch = watch or ServerWatch()
        self._topics = topics
        self._monotonic = monotonic
        self._queues: dict[str, _Queue] = {}
        self._rotation: dict[str, _Queue] = {}
        self._batch: list[Inbound] = []
        self._throttle = LogThrottle(monotonic)

    @property
    def waiting(self) -> bool:
        """Whether any message can be processed now."""
        now = self._monotonic()
        return bool(self._batch) or any(queue.has_work(now) for queue in self._rotation.values())

    @property
    def queued(self) -> bool:
        """Whether any message is queued, also one that is processed later."""
        return bool(self._batch or self._rotation)

    def fetch(self, timeout_s: float) -> None:
        """Queue all messages that have arrived, waiting at most `timeout_s` seconds for the first."""
        for _ in range(_MAX_DRAINS):
            arrived = self._inbox.drain(timeout_s)
            if not arrived:
                return
            self._inbox.acknowledge([dropped for delivery in arrived for dropped in self._put(delivery)])
            timeout_s = 0.0

    def next_batch(self) -> list[Inbound]:
        """Return a few messages of each of the next agents; the same batch until it is acknowledged.

        An agent has one turn in a batch: while a longer one of a busy agent is processed, all others would wait. The
        more agents wait, the shorter it is, so that each soon gets acks, and sends nothing again.
        """
        if not self._batch:
            now, bytes_left, agents = self._monotonic(), _BATCH_BYTES, len(self._rotation)
            for _ in range(agents):
                if bytes_left <= 0 or len(self._batch) >= _BATCH_FRAMES:
                    break
                taken = self._next_slice(now, max(1, _BATCH_FRAMES // agents))
                self._batch += taken
                bytes_left -= sum(len(message.payload) for message in taken)
        return self._batch

    def acknowledge_batch(self) -> None:
        """Send the PUBACKs of the batch that `next_batch` returned: its messages were processed."""
        self._inbox.acknowledge([message.delivery for message in self._batch])
        self._batch = []

    def _put(self, delivery: Delivery) -> list[Delivery]:
        """Queue a delivery under its agent; return the deliveries that are dropped for it."""
        message = addressed(delivery, self._topics)
        if message is None:
            self._watch.refused("unknown_topic")
            self._warn("unknown_topic", "", topic=delivery.topic[:200])
            return [delivery]
        queue = self._queue_of(message.agent)
        dropped = queue.put(message, self._monotonic())
        if len(queue):
            self._rotation.setdefault(message.agent, queue)
        if any(it is message for it in dropped):
            self._watch.refused("agent_floods", len(dropped))
            self._warn("agent_floods", message.agent, dropped=message.channel)
        return [it.delivery for it in dropped]

    def _queue_of(self, agent: str) -> _Queue:
        if agent not in self._queues and len(self._queues) >= _MAX_AGENTS:
            now = self._monotonic()
            self._queues = {name: queue for name, queue in self._queues.items() if not queue.is_fresh(now)}
        return self._queues.setdefault(agent, _Queue())

    def _next_slice(self, now: float, frames: int) -> list[Inbound]:
        agent, queue = next(iter(self._rotation.items()))
        del self._rotation[agent]
        taken = queue.take(now, min(frames, _SLICE_FRAMES))
        if len(queue):
            self._rotation[agent] = queue  # at the end
        return taken

    def _warn(self, event: str, agent: str, **facts: str) -> None:
        self._throttle.warn(_log, event, agent, agent=agent, **facts)
