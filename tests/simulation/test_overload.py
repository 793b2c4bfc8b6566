"""A fleet that is sent three times what its server can take in: nothing is sent twice, and nothing collapses."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest

from broker.app.factories import open_database
from broker.contract.codec import decode_acks, decode_commands, encode
from broker.contract.messages import Command, Feedback, Origin, Status
from broker.contract.states import FeedbackKind, Outcome
from broker.contract.topics import Topics
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.mqtt.broker_limits import MAX_PACKET_BYTES
from broker.mqtt.delivery import Delivery
from broker.server.inbox import FairInbox
from broker.server.server import Server
from tests.support.fakes.clock import TurnedClock

TOPICS = Topics()
NAMES = [f"web-{number:03}" for number in range(200)]
WINDOW = 1000
FRAMES_PER_S = 250.0  # the capacity of the server
COMMANDS_PER_S = 250.0  # each makes three messages
LOAD_S = 20.0
RESEND_S = 4.0


@dataclass
class Fleet:
    """The agents, and their broker: it delivers what they have published in order, at most `WINDOW` frames at once."""

    clock: TurnedClock
    backlog = 0
    backlog_bytes = 0
    max_packet_bytes = MAX_PACKET_BYTES
    arrived: deque[Delivery] = field(default_factory=deque)
    received: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)
    unacked: dict[str, tuple[str, bytes, float]] = field(default_factory=dict)
    open: int = 0
    numbers: Counter[str] = field(default_factory=Counter)

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes

    filled_payload_bytes = max_payload_bytes

    def drain(self, timeout_s: float) -> list[Delivery]:
        taken = [self.arrived.popleft() for _ in range(min(len(self.arrived), WINDOW - self.open))]
        self.open += len(taken)
        return taken

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        self.open -= len(list(deliveries))

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: object = None) -> bool:
        _, agent, channel = topic.split("/")
        if channel == "ack":
            for ack in decode_acks(payload):
                self.unacked.pop(ack.command_id, None)
        elif channel == "command":
            for command in decode_commands(payload, received_at=datetime.min, new_id=str):
                self._run(agent, command)
        return True

    def _run(self, agent: str, command: Command) -> None:
        self.received[command.id] += 1
        said = Feedback(FeedbackKind.ACCEPTED, agent, "g", "i", "pending", "m", command.id, sequence=command.sequence)
        self._say(agent, "feedback", encode([said]))
        echo = {"type": command.type, "parameters": {}}
        ended = replace(said, kind=FeedbackKind.RESULT, outcome=Outcome.SUCCESS, digest="d", command=echo)
        self.unacked[command.id] = agent, encode([ended]), self.clock.monotonic()
        self._report(command.id)
        self.say_status(agent, command)

    def say_status(self, agent: str, command: Command | None = None) -> None:
        self.numbers[agent] += 1
        status = Status(agent, True, "1", "i", "b", "g", order=(1, 1, self.numbers[agent]))
        if command is not None and command.sequence is not None:
            status = replace(status, epoch=command.sequence.epoch, last_sequence=command.sequence.number)
        self._say(agent, "status", encode([status]))

    def resend(self) -> None:
        """Send the results again whose acks did not come in time."""
        for command_id, (agent, frame, sent_at) in list(self.unacked.items()):
            if self.clock.monotonic() >= sent_at + RESEND_S * self.published[command_id]:
                self.unacked[command_id] = agent, frame, self.clock.monotonic()
                self._report(command_id)

    def _report(self, command_id: str) -> None:
        agent, frame, _ = self.unacked[command_id]
        self.published[command_id] += 1
        self._say(agent, "feedback", frame)

    def _say(self, agent: str, channel: str, payload: bytes) -> None:
        self.arrived.append(Delivery(f"acm/{agent}/{channel}", payload, False, False, 1, 1))


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def ledger(clock: TurnedClock) -> Iterator[Ledger]:
    with open_database("sqlite://") as database:
        yield Ledger(database, now=clock.now)


def test_server_beyond_its_capacity_slows_down_evenly(ledger: Ledger, clock: TurnedClock) -> None:
    fleet = Fleet(clock)
    server = Server(ledger, fleet, TOPICS, monotonic=clock.monotonic)
    inbox = FairInbox(fleet, TOPICS, clock.monotonic)
    for agent in NAMES:
        fleet.say_status(agent)
    wanted, added, longest = 0.0, 0, 0

    def turn() -> None:
        """One turn of the server's loop; the clock is turned by what it takes."""
        nonlocal wanted, longest
        inbox.fetch(0.0)
        batch = inbox.next_batch()
        took_s = max(0.05, len(batch) / FRAMES_PER_S)
        server.receive(batch)
        inbox.acknowledge_batch()
        server.step(is_behind=inbox.waiting)
        clock.turn(took_s)
        fleet.resend()
        wanted += took_s * COMMANDS_PER_S
        longest = max(longest, len(fleet.arrived))

    while inbox.waiting or fleet.arrived:
        turn()
    begin, wanted = clock.monotonic(), 0.0
    while clock.monotonic() < begin + LOAD_S:
        while added < wanted:
            ledger.add_command(NAMES[added % len(NAMES)], CommandRequest("x", {}, Origin("me", "test")))
            added += 1
        turn()
    completed = len(fleet.received) - len(fleet.unacked)
    while fleet.unacked or len(fleet.received) < added:
        turn()
    assert set(fleet.received.values()) == {1}, "no command is sent twice"
    assert sum(fleet.published.values()) <= added * 1.1, "hardly any result is sent twice"
    assert completed >= 0.8 * LOAD_S * FRAMES_PER_S / 3
    assert longest <= 4 * WINDOW
