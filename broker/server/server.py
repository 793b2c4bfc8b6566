"""The server: sends the ledger's commands, records what agents send, and acknowledges results."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import structlog

from broker.contract.codec import Message, frames, joined_frames
from broker.contract.limits import MAX_SIGNED_FRAME_BYTES
from broker.contract.messages import MAX_BLOB_CHUNK_BYTES, Ack, Control, Status
from broker.contract.states import ControlAction, ErrorCode
from broker.contract.topics import Channel, Topics
from broker.contract.trace_context import TraceContext
from broker.ledger.agents import AgentState
from broker.ledger.ledger import Ledger
from broker.ledger.outbox import Claimed, DueCommand
from broker.ledger.shares import LEAST_SHARE
from broker.mqtt.inbound import Inbound
from broker.server.blob_requests import BlobRequests
from broker.server.receiver import Receiver
from broker.server.traces import ServerTraces
from broker.server.watch import ServerWatch
from broker.server.wire import Wire
from broker.signing.hold import Hold
from broker.signing.signer import Signer
from broker.system.log_throttle import LogThrottle

__all__ = [
    "Server",
]


_log = structlog.get_logger("acm.server")
_MAX_PER_STEP = 500
_LEAST_AGENTS = _MAX_PER_STEP // LEAST_SHARE
_FEW_PER_STEP = 60  # a command causes some four messages: fewer come in for them than a turn takes in
_LONGEST_BEHIND_S = 60.0
_CHUNKS_PER_STEP = 8
_MAX_BACKLOG = 8
_BESIDE_CHUNK_BYTES = 512  # the other members of a chunk, and a longer agent name
_BESIDE_FRAME_BYTES = 4096  # the scope and the signatures of a signed frame
_MAX_BACKLOG_BYTES = 16 << 20
_SETTLE_EVERY_S = 1.0
_TIDY_EVERY_S = 30.0
_NEWS_S = 60.0  # after a connection: until the statuses and results that waited at the broker have arrived
_T = TypeVar("_T")


class Server:
    """Commands a fleet. Owns no thread: `receive` processes messages, `step` sends what is due.

    Safe against message loss in both directions: commands are resent until the agent has accepted them, and a result is
    committed to the ledger before its ack is sent. A `signer` signs commands, cancels and acks, and decides for which
    agents they must be held: those stay in the ledger until the agent would accept them. `traces` makes spans of
    commands that are part of a trace. All methods raise LedgerError
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
        watch: ServerWatch | None = None,
        traces: ServerTraces | None = None,
    ) -> None:
        self._ledger = ledger
        self._traces = traces
        self._wire = wire
        self._topics = topics
        self._signer = signer
        self._blob_requests = BlobRequests(ledger.blobs)
        self._throttle = LogThrottle(monotonic)
        self._monotonic = monotonic
        self._watch = watch or ServerWatch()
        self._settle_at = self._tidy_at = 0.0
        self._knows_agents_at = math.inf
        self._receiver = Receiver(
            ledger, self._acknowledge, self._ask_to_report, self._blob_requests, self._throttle, on_status, self._watch
        )
        self._held: dict[str, Hold] = {}
        self._last_served = ""
        self._agents_per_step = _MAX_PER_STEP
        self._looked_for_overdue_at = monotonic()
        self._packet_bytes = wire.max_packet_bytes
        self._may_be_lost = False

    @staticmethod
    def subscriptions(topics: Topics) -> list[str]:
        """Return the topic filters that a server's connection must subscribe to."""
        return [topics.of_all(channel) for channel in (Channel.FEEDBACK, Channel.STATUS, Channel.BLOB_REQUEST)]

    def expects_messages(self) -> bool:
        """Whether a message is due within a few minutes: each agent that is online repeats its status."""
        return any(row.state in (AgentState.ONLINE, AgentState.SILENT) for row in self._ledger.agents())

    @property
    def unfinished(self) -> bool:
        """Whether `step` may soon send more, though nothing changes in the ledger: once the broker has confirmed."""
        return self._blob_requests.waiting or self._wire.backlog > 0

    def connected(self) -> None:
        """Let the next step send again what agents have not accepted: an earlier connection may have lost it."""
        self._knows_agents_at = self._monotonic() + _NEWS_S
        self._may_be_lost = True

    def receive(self, messages: Iterable[Inbound]) -> None:
        """Process messages of agents. When this returns they may be acknowledged; when it raises, not yet."""
        self._receiver.receive(messages)

    def settle(self, *, connected: bool) -> None:
        """Complete the expired commands that can no longer begin, once a second, and tidy up now and then.

        Those that may have been sent only while connected, and once what waited at the broker has arrived.
        """
        now = self._monotonic()
        if now < self._settle_at:
            return
        self._settle_at = now + _SETTLE_EVERY_S
        for agent, command_id in self._ledger.settle_expired(may_be_sent=connected and now >= self._knows_agents_at):
            _log.info("command_expired", agent=agent, command_id=command_id)
            self._watch.completed_by_server(ErrorCode.EXPIRED)
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_EVERY_S
            self._tidy(knows_agents=connected and now >= self._knows_agents_at)

    def _tidy(self, *, knows_agents: bool) -> None:
        """Note which agents have fallen silent, unless that is for want of news, and remove old events."""
        for agent in self._ledger.note_silence() if knows_agents else ():
            _log.info("agent_silent", agent=agent)
        self._ledger.events.prune()

    def step(self, *, is_behind: bool = False) -> None:
        """Send what is due: cancels first, so that they do not wait for commands, and chunks of blobs last.

        Nothing while the broker has not confirmed many bytes: they are in memory until then. While the server
        `is_behind`, because messages wait to be taken in, it sends few commands, and takes nothing for lost: the answer
        may be among them.
        """  # design.md: "Agents are served in turn, without a rate limit.", "Overload does not feed itself."
        if self._wire.backlog_bytes >= _MAX_BACKLOG_BYTES:
            return
        self._requeue_lost()
        self._requeue_overdue(is_behind=is_behind)
        agents = self._next_agents()
        if agents:
            claimed = self._ledger.claim_due(_FEW_PER_STEP if is_behind else _MAX_PER_STEP, agents)
            self._watch.claimed(claimed)
            for agent, ids in _by_agent(claimed.cancels):
                self._publish(agent, Channel.CONTROL, [Control(ControlAction.CANCEL, command_id) for command_id in ids])
            for agent, commands in _by_agent(claimed.commands):
                self._send_commands(agent, commands)
            self._note_served(agents, claimed)
        self._answer_blob_requests()

    def _requeue_overdue(self, *, is_behind: bool) -> None:
        now = self._monotonic()
        if not is_behind or now >= self._looked_for_overdue_at + _LONGEST_BEHIND_S:
            self._looked_for_overdue_at = now
            self._ledger.requeue_overdue()

    def _requeue_lost(self) -> None:
        """Send all again after a new connection, and if the broker has just refused a packet as too long.

        What was too long can now end, or be divided. If the ledger fails, the next step tries again.
        """
        before, self._packet_bytes = self._packet_bytes, self._wire.max_packet_bytes
        self._may_be_lost |= self._packet_bytes < before
        if self._may_be_lost:
            self._ledger.requeue_all()
            self._may_be_lost = False

    def _next_agents(self) -> Sequence[str]:
        """Return the next agents that something is due for and that would accept it."""
        passed: dict[str, None] = {}
        after, most = self._last_served, self._agents_per_step
        while found := [it for it in self._ledger.due_agents(after, most) if it not in passed]:
            if agents := self._not_held(found):
                return agents
            passed |= dict.fromkeys(found)
            after, most = found[-1], _MAX_PER_STEP
        return []

    def _note_served(self, agents: Sequence[str], claimed: Claimed) -> None:
        """Continue after the last agent, and decide how many the next step looks at.

        Twice as many as there was room for, since a few with long queues may take all of it; if all were served, twice
        as many as before, since others may be held.
        """
        served = claimed.commands or claimed.cancels
        self._last_served = served[-1][0] if served else agents[-1]
        count = len({agent for agent, _ in (*claimed.cancels, *claimed.commands)})
        enough = count if count < len(agents) else self._agents_per_step
        self._agents_per_step = min(_MAX_PER_STEP, max(_LEAST_AGENTS, 2 * enough))

    def _not_held(self, agents: Sequence[str]) -> Sequence[str]:
        """Return the agents that would accept messages; log each hold once."""
        held = self._signer.held(agents) if self._signer else {}
        for agent in agents:
            hold, before = held.get(agent), self._held.pop(agent, None)
            if hold is not None:
                self._held[agent] = hold
                if hold != before:
                    _log.warning("commands_are_held", agent=agent, code=hold.code, reason=hold.message)
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

    def _acknowledge(self, acks: Mapping[str, Sequence[Ack]]) -> None:
        held = self._signer.held(acks) if self._signer else {}
        for agent, its_acks in acks.items():
            if agent in held:  # they are dropped; the agent sends the results again until it gets them
                self._warn("results_are_not_acked", agent, code=held[agent].code, reason=held[agent].message)
            else:
                self._publish(agent, Channel.ACK, its_acks)
                self._watch.acked(agent, its_acks)

    def _ask_to_report(self, requests: Mapping[str, str]) -> Collection[str]:
        # An agent that has lost its store may have just enrolled again; it answers nothing that is signed for before.
        held = self._signer.held(requests, uncached=True) if self._signer else {}
        for agent, request in requests.items():
            if agent not in held:
                self._publish(agent, Channel.CONTROL, [Control(ControlAction.REPORT, request)])
        return held

    def _publish(self, agent: str, channel: Channel, messages: Sequence[Message]) -> None:
        """Publish messages to an agent, signed if there is a signer; those that it holds are resent later."""
        for frame in frames(messages, self._room_of_frame(agent, channel)):
            if (too_long := self._publish_frame(agent, channel, frame)) is not None:
                limit = self._wire.max_packet_bytes
                self._warn("message_too_long", agent, bytes=str(too_long), limit=str(limit))

    def _send_commands(self, agent: str, commands: Sequence[DueCommand]) -> None:
        parts = [(commands, None)] if self._traces is None else self._traces.sending(agent, commands)
        for some, trace in parts:
            self._publish_commands(agent, some, trace)

    def _publish_commands(self, agent: str, commands: Sequence[DueCommand], trace: TraceContext | None = None) -> None:
        """Publish commands likewise. One that is too long for the broker is completed with an error.

        Sent, it would end the connection.
        """
        room = self._room_of_frame(agent, Channel.COMMAND)
        for frame in joined_frames([it.message for it in commands], Channel.COMMAND, room):
            if (too_long := self._publish_frame(agent, Channel.COMMAND, frame, trace)) is not None:
                self._give_up(agent, next(it.id for it in commands if it.message == frame), too_long)

    def _room_of_frame(self, agent: str, channel: Channel) -> int:
        """Return how long a frame of several messages may be: signing makes it longer by a third, in base64."""
        filled = self._wire.filled_payload_bytes(self._topics.of(agent, channel))
        return max(1, min(MAX_SIGNED_FRAME_BYTES, filled * 3 // 4 - _BESIDE_FRAME_BYTES))

    def _publish_frame(
        self, agent: str, channel: Channel, frame: bytes, trace: TraceContext | None = None
    ) -> int | None:
        """Publish a frame unless its agent is held; return its length if it is too long, as one message can be."""
        topic = self._topics.of(agent, channel)
        payload = self._signer.sign(agent, channel, frame) if self._signer else frame
        if payload is None:
            return None
        if len(payload) > self._wire.max_payload_bytes(topic):
            return len(payload)
        self._wire.publish(topic, payload, trace=trace)
        return None

    def _give_up(self, agent: str, command_id: str, size: int) -> None:
        limit = self._wire.max_packet_bytes
        reason = (
            f"The command was not sent: it makes a message of {size} bytes, and the broker takes no packets of more "
            f"than {limit} bytes. Send a file with --file, or raise the broker's limit (Mosquitto: max_packet_size, "
            "message_size_limit)."
        )
        self._ledger.fail(command_id, ErrorCode.INVALID, reason)
        self._watch.completed_by_server(ErrorCode.INVALID)
        _log.error("command_too_long", agent=agent, command=command_id, bytes=size, limit=limit)


def _by_agent(pairs: list[tuple[str, _T]]) -> Iterator[tuple[str, list[_T]]]:
    for agent, group in groupby(pairs, key=itemgetter(0)):
        yield agent, [item for _, item in group]
