"""The server: sends the ledger's commands, records what agents send, and acknowledges results."""

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeVar

import structlog

from broker.contract.codec import Message, encode, frames
from broker.contract.limits import MAX_SIGNED_FRAME_BYTES
from broker.contract.messages import MAX_BLOB_CHUNK_BYTES, Ack, Command, Control, Status
from broker.contract.states import ControlAction, ErrorCode
from broker.contract.topics import Channel, Topics
from broker.ledger.agents import AgentState
from broker.ledger.ledger import Ledger
from broker.mqtt.inbound import Inbound
from broker.server.blob_requests import BlobRequests
from broker.server.receiver import Receiver
from broker.signing.signer import Hold, Signer
from broker.system.log_throttle import LogThrottle

__all__ = [
    "Server",
]


_log = structlog.get_logger("acm.server")
_MAX_PER_STEP = 500
_CHUNKS_PER_STEP = 8
_MAX_BACKLOG = 8
_BESIDE_CHUNK_BYTES = 512  # the other members of a chunk, and a longer agent name
_BESIDE_FRAME_BYTES = 4096  # the scope and the signatures of a signed frame
_MAX_BACKLOG_BYTES = 16 << 20
_SETTLE_EVERY_S = 1.0
_NEWS_S = 60.0  # after a connection: until the statuses and results that waited at the broker have arrived
_T = TypeVar("_T")


class Wire(Protocol):
    """The part of an MQTT connection that the server uses."""

    @property
    def backlog(self) -> int:
        """How many messages the broker has not confirmed yet."""

    @property
    def backlog_bytes(self) -> int:
        """How long these messages are together, without their topics."""

    @property
    def max_packet_bytes(self) -> int:
        """The length of the longest MQTT packet that the broker takes."""

    def max_payload_bytes(self, topic: str) -> int:
        """Return the length of the longest payload that fits into such a packet on this topic."""

    def filled_payload_bytes(self, topic: str) -> int:
        """Return how long to make a payload on this topic that can be divided."""

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> bool:
        """Publish at QoS 1 without blocking; False means that it was dropped."""


class Server:
    """Commands a fleet. Owns no thread: `receive` processes messages, `step` sends what is due.

    Safe against message loss in both directions: commands are resent until the agent has accepted them, and a result is
    committed to the ledger before its ack is sent. A `signer` signs commands, cancels and acks, and decides for which
    agents they must be held: those stay in the ledger until the agent would accept them. All methods raise LedgerError
    when the ledger fails, and SigningKeyError when the keys cannot be read.
    """

    def __init__(
        self,
        ledger: Ledger,
        wire: Wire,
        topics: Topics,
        signer: Signer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        on_status: Callable[[Status], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._wire = wire
        self._topics = topics
        self._signer = signer
        self._blob_requests = BlobRequests(ledger.blobs)
        self._throttle = LogThrottle(monotonic)
        self._monotonic = monotonic
        self._settle_at = 0.0
        self._knows_agents_at = math.inf
        self._receiver = Receiver(
            ledger, self._acknowledge, self._ask_to_report, self._blob_requests, self._throttle, on_status
        )
        self._held: dict[str, Hold] = {}
        self._last_served = ""
        self._packet_bytes = wire.max_packet_bytes

    @staticmethod
    def subscriptions(topics: Topics) -> list[str]:
        """Return the topic filters that a server's connection must subscribe to."""
        return [topics.of_all(channel) for channel in (Channel.FEEDBACK, Channel.STATUS, Channel.BLOB_REQUEST)]

    def expects_messages(self) -> bool:
        """Whether a message is due within a few minutes: each agent that is online repeats its status."""
        return any(row.state in (AgentState.ONLINE, AgentState.SILENT) for row in self._ledger.agents())

    def connected(self) -> None:
        """Make due what agents have not accepted: the broker may have lost what an earlier connection published."""
        self._knows_agents_at = self._monotonic() + _NEWS_S
        self._ledger.requeue_all()

    def receive(self, messages: Iterable[Inbound]) -> None:
        """Process messages of agents. When this returns they may be acknowledged; when it raises, not yet."""
        self._receiver.receive(messages)

    def settle(self, *, connected: bool) -> None:
        """Complete the expired commands that can no longer begin; once a second.

        Those that may have been sent only while connected, and once what waited at the broker has arrived.
        """
        now = self._monotonic()
        if now < self._settle_at:
            return
        self._settle_at = now + _SETTLE_EVERY_S
        for agent, command_id in self._ledger.settle_expired(may_be_sent=connected and now >= self._knows_agents_at):
            _log.info("command_expired", agent=agent, command_id=command_id)

    def step(self) -> None:
        """Send what is due: cancels first, so that they do not wait for commands, and chunks of blobs last.

        Nothing while the broker has not confirmed many bytes: they are in memory until then.
        """  # design.md: "Agents are served in turn, without a rate limit."
        if self._wire.backlog_bytes >= _MAX_BACKLOG_BYTES:
            return
        self._requeue_refused()
        self._ledger.requeue_overdue()
        agents = self._in_turn(self._not_held(self._ledger.due_agents()))
        if agents:
            claimed = self._ledger.claim_due(_MAX_PER_STEP, agents)
            for agent, ids in _by_agent(claimed.cancels):
                self._publish(agent, Channel.CONTROL, [Control(ControlAction.CANCEL, command_id) for command_id in ids])
            for agent, commands in _by_agent(claimed.commands):
                self._publish(agent, Channel.COMMAND, commands)
            served = claimed.commands or claimed.cancels
            self._last_served = served[-1][0] if served else ""
        self._answer_blob_requests()

    def _requeue_refused(self) -> None:
        """Send again at once if the broker has just refused a packet as too long: it can now end, or be divided."""
        before, self._packet_bytes = self._packet_bytes, self._wire.max_packet_bytes
        if self._packet_bytes < before:
            self._ledger.requeue_all()

    def _in_turn(self, agents: Sequence[str]) -> Sequence[str]:
        """Return the next agents in order of name, after the one that was served last."""
        first = bisect_right(agents, self._last_served)
        return [*agents[first:], *agents[:first]][:_MAX_PER_STEP]

    def _not_held(self, agents: Sequence[str]) -> Sequence[str]:
        """Return the agents that would accept messages; log each hold once."""
        held = self._signer.held(agents) if self._signer else {}
        for agent, hold in held.items():
            if self._held.get(agent) != hold:
                _log.warning("commands_are_held", agent=agent, code=hold.code, reason=hold.message)
        self._held = held
        return [agent for agent in agents if agent not in held]

    def _answer_blob_requests(self) -> None:
        """Send a few chunks, and none while many messages wait: on a slow line they would delay commands."""
        for _ in range(_CHUNKS_PER_STEP):
            if not self._blob_requests.waiting or self._wire.backlog >= _MAX_BACKLOG:
                return
            agent, chunk = self._blob_requests.next_chunk(self._chunk_bytes())
            if chunk.error is not None:
                self._warn("blob_refused", agent, reason=chunk.error)
            for frame in frames([chunk]):
                self._wire.publish(self._topics.of(agent, Channel.BLOB_CHUNK), frame)

    def _warn(self, event: str, agent: str, **facts: str) -> None:
        self._throttle.warn(_log, event, agent, agent=agent, **facts)

    def _chunk_bytes(self) -> int:
        """Return how many bytes of a blob fit into one message at this broker: in base64, beside its names."""
        room = self._wire.filled_payload_bytes(self._topics.of_all(Channel.BLOB_CHUNK))
        return max(1, min(MAX_BLOB_CHUNK_BYTES, (room - _BESIDE_CHUNK_BYTES) * 3 // 4))

    def _acknowledge(self, agent: str, acks: Sequence[Ack]) -> None:
        held = self._signer.held([agent]) if self._signer else {}
        if held:  # the acks are dropped; the agent sends the results again until it gets them
            self._warn("results_are_not_acked", agent, code=held[agent].code, reason=held[agent].message)
        else:
            self._publish(agent, Channel.ACK, acks)

    def _ask_to_report(self, agent: str, request: str) -> bool:
        if self._signer and self._signer.held([agent]):
            return False
        self._publish(agent, Channel.CONTROL, [Control(ControlAction.REPORT, request)])
        return True

    def _publish(self, agent: str, channel: Channel, messages: Sequence[Message]) -> None:
        """Publish messages to an agent, signed if there is a signer; those that it holds are resent later.

        A command that is too long for the broker is completed with an error: sent, it would end the connection.
        """
        topic = self._topics.of(agent, channel)
        room = self._wire.max_payload_bytes(topic)
        filled = self._wire.filled_payload_bytes(topic)
        # Base64 makes a signed frame longer by a third; only a single message can still be too long then.
        for frame in frames(messages, max(1, min(MAX_SIGNED_FRAME_BYTES, filled * 3 // 4 - _BESIDE_FRAME_BYTES))):
            payload = self._signer.sign(agent, channel, frame) if self._signer else frame
            if payload is not None and len(payload) > room:
                self._give_up(agent, next(it for it in messages if encode([it]) == frame), len(payload))
            elif payload is not None:
                self._wire.publish(topic, payload)

    def _give_up(self, agent: str, message: Message, size: int) -> None:
        limit = self._wire.max_packet_bytes
        if not isinstance(message, Command):
            self._warn("message_too_long", agent, bytes=str(size), limit=str(limit))
            return
        reason = (
            f"The command was not sent: it makes a message of {size} bytes, and the broker takes no packets of more "
            f"than {limit} bytes. Send a file with --file, or raise the broker's limit (Mosquitto: max_packet_size, "
            "message_size_limit)."
        )
        self._ledger.fail(message.id, ErrorCode.INVALID, reason)
        _log.error("command_too_long", agent=agent, command=message.id, bytes=size, limit=limit)


def _by_agent(pairs: list[tuple[str, _T]]) -> Iterator[tuple[str, list[_T]]]:
    for agent, group in groupby(pairs, key=itemgetter(0)):
        yield agent, [item for _, item in group]
