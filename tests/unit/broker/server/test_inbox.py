"""Fair queueing: an agent that floods the server delays only itself."""

from collections.abc import Iterable, Iterator

import pytest
from structlog.testing import capture_logs

from broker.app.factories import open_database
from broker.contract.codec import decode_acks, encode
from broker.contract.messages import BlobRequest, Origin, Status
from broker.contract.topics import Topics
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.mqtt.broker_limits import MAX_PACKET_BYTES
from broker.mqtt.delivery import Delivery
from broker.mqtt.inbound import Inbound
from broker.server.inbox import FairInbox
from broker.server.server import Server
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result

TOPICS = Topics()
WINDOW = 1000


class NarrowInbox:
    """Delivers what was published in order, and at most the receive maximum without acknowledgement."""

    def __init__(self) -> None:
        self._published: list[Delivery] = []
        self._next = 0
        self._open: set[int] = set()
        self.acked = 0
        self.sent: list[tuple[str, bytes]] = []
        self.backlog = 0
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.backlog_bytes = 0

    def arrive(self, topic: str, payload: bytes, times: int = 1) -> None:
        for _ in range(times):
            mid = len(self._published) + 1
            self._published.append(Delivery(topic, payload, False, False, mid, 1))

    def drain(self, timeout_s: float) -> list[Delivery]:
        room = min(500, WINDOW - len(self._open))
        taken = self._published[self._next : self._next + room]
        self._next += len(taken)
        self._open |= {delivery.mid for delivery in taken}
        return taken

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        mids = {delivery.mid for delivery in deliveries}
        assert mids <= self._open, "acknowledged what was not open"
        self._open -= mids
        self.acked += len(mids)

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes - 64

    filled_payload_bytes = max_payload_bytes

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: object = None) -> bool:
        self.sent.append((topic, payload))
        return True

    def on(self, topic: str) -> list[bytes]:
        return [payload for sent_to, payload in self.sent if sent_to == topic]


@pytest.fixture
def inbox() -> NarrowInbox:
    return NarrowInbox()


@pytest.fixture
def ledger(clock: TurnedClock) -> Iterator[Ledger]:
    opened = Ledger(open_database("sqlite://"), now=clock.now)
    yield opened
    opened.database.close()


@pytest.fixture
def fair(inbox: NarrowInbox, clock: TurnedClock) -> FairInbox:
    return FairInbox(inbox, TOPICS, clock.monotonic)


def status(agent: str, depth: int) -> bytes:
    return encode([Status(agent, True, "1", "i", "b", "g", queue_depth=depth)])


def everything(fair: FairInbox) -> list[Inbound]:
    taken: list[Inbound] = []
    fair.fetch(0.0)
    while fair.waiting:
        taken += fair.next_batch()
        fair.acknowledge_batch()
        fair.fetch(0.0)
    return taken


FLOODS = {
    "invented results": ("feedback", encode([result(f"invented-{number}") for number in range(100)])),
    "malformed": ("feedback", b'{"kind": "result"}'),
    "too long": ("feedback", b"x" * 300_000),
    "statuses": ("status", status("flood", 1)),
    "requests for blobs": ("blob-request", encode([BlobRequest("a" * 64, 0, 1)])),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_from_one_agent_delays_only_that_agent(
    kind: str, inbox: NarrowInbox, fair: FairInbox, ledger: Ledger, clock: TurnedClock
) -> None:
    server = Server(ledger, inbox, TOPICS, monotonic=clock.monotonic)
    command = ledger.add_command("web-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    channel, frame = FLOODS[kind]
    inbox.arrive(f"acm/flood/{channel}", frame, times=9_000)
    inbox.arrive("acm/web-01/feedback", encode([result(command.id)]))
    inbox.arrive(f"acm/flood/{channel}", frame, times=900)
    for _ in range(4):
        fair.fetch(0.0)
        server.receive(fair.next_batch())
        fair.acknowledge_batch()
    assert ledger.get(command.id).state is CommandState.COMPLETED
    (ack,) = inbox.on("acm/web-01/ack")
    assert [it.command_id for it in decode_acks(ack)] == [command.id]
    clock.turn(1.0)
    everything(fair)
    assert inbox.acked == 9_901


def test_agents_are_served_in_turn_and_each_in_its_order(inbox: NarrowInbox, fair: FairInbox) -> None:
    for number in range(150):
        inbox.arrive("acm/a/feedback", b"a%d" % number)
    inbox.arrive("acm/b/feedback", b"b0")
    inbox.arrive("acm/c/feedback", b"c0")
    taken = [delivery.payload for delivery in everything(fair)]
    assert taken.index(b"c0") < taken.index(b"a100")
    assert [payload for payload in taken if payload.startswith(b"a")] == [b"a%d" % number for number in range(150)]
    assert len(taken) == 152


def test_agent_has_one_turn_in_a_batch(inbox: NarrowInbox, fair: FairInbox) -> None:
    inbox.arrive("acm/a/feedback", b"x", times=190)
    inbox.arrive("acm/b/feedback", b"x" * 60_000, times=3)
    fair.fetch(0.0)
    assert [message.agent for message in fair.next_batch()] == [*"a" * 64, "b"]


def test_batch_is_shared_by_all_agents_that_wait(inbox: NarrowInbox, fair: FairInbox) -> None:
    names = [f"{number:03}" for number in range(100)]
    for name in names:
        inbox.arrive(f"acm/{name}/feedback", b"x", times=8)
    for _ in range(2):
        fair.fetch(0.0)
    assert [message.agent for message in fair.next_batch()] == [name for name in names for _ in range(5)]


def test_batch_is_bounded_and_repeated_until_it_is_acknowledged(inbox: NarrowInbox, fair: FairInbox) -> None:
    inbox.arrive("acm/a/feedback", b"x" * 200_000, times=30)
    fair.fetch(0.0)
    for agent in "bcd":
        inbox.arrive(f"acm/{agent}/feedback", b"x" * 200_000)
    fair.fetch(0.0)
    assert [len(fair.next_batch()) for _ in range(2)] == [3, 3]
    fair.acknowledge_batch()
    assert len(everything(fair)) == 30


@pytest.mark.parametrize(("size", "room"), [(1, 400), (1_000_000, 8)])
def test_agent_that_overflows_its_queue_is_ignored_for_a_moment(
    size: int, room: int, inbox: NarrowInbox, fair: FairInbox, clock: TurnedClock
) -> None:
    inbox.arrive("acm/a/feedback", b"x" * size, times=room)
    fair.fetch(0.0)
    assert inbox.acked == 0
    inbox.arrive("acm/a/feedback", b"x" * size)
    inbox.arrive("acm/b/feedback", b"from b")
    fair.fetch(0.0)
    assert inbox.acked == room + 1
    clock.turn(1.9)
    inbox.arrive("acm/a/feedback", b"too soon")
    assert [delivery.payload for delivery in everything(fair)] == [b"from b"]
    clock.turn(0.1)
    inbox.arrive("acm/a/feedback", b"late enough")
    assert [delivery.payload for delivery in everything(fair)] == [b"late enough"]
    assert inbox.acked == room + 4


def test_only_the_newest_status_is_queued_and_it_is_never_dropped(
    inbox: NarrowInbox, fair: FairInbox, clock: TurnedClock
) -> None:
    inbox.arrive("acm/a/status", b"first")
    inbox.arrive("acm/a/feedback", b"x", times=400)
    inbox.arrive("acm/a/status", b"second")
    assert [delivery.payload for delivery in everything(fair)] == [b"second"]
    inbox.arrive("acm/a/status", b"third", times=50)
    inbox.arrive("acm/a/status", b"last")
    assert everything(fair) == []
    clock.turn(0.2)
    assert [delivery.payload for delivery in everything(fair)] == [b"last"]
    assert inbox.acked == 453


def test_status_is_not_overtaken_by_what_its_agent_sent_after_it(
    inbox: NarrowInbox, fair: FairInbox, clock: TurnedClock
) -> None:
    inbox.arrive("acm/a/status", b"1")
    assert [message.payload for message in everything(fair)] == [b"1"]
    for payload in (b"before", b"2", b"after"):
        inbox.arrive(f"acm/a/{'status' if payload == b'2' else 'feedback'}", payload)
    assert [message.payload for message in everything(fair)] == [b"before"]
    clock.turn(0.2)
    assert [message.payload for message in everything(fair)] == [b"2", b"after"]


def test_flood_is_logged_once_per_agent_and_minute(inbox: NarrowInbox, fair: FairInbox, clock: TurnedClock) -> None:
    with capture_logs() as logs:
        inbox.arrive("acm/a/feedback", b"x", times=500)
        inbox.arrive("acm/b/feedback", b"x", times=401)
        fair.fetch(0.0)
        clock.turn(61.0)
        inbox.arrive("acm/a/feedback", b"x", times=401)
        fair.fetch(0.0)
    assert [(entry["event"], entry["agent"], entry["suppressed"]) for entry in logs] == [
        ("agent_floods", "a", 0),
        ("agent_floods", "b", 0),
        ("agent_floods", "a", 99),
    ]


@pytest.mark.parametrize("topic", ["acm/UPPER/feedback", "elsewhere/feedback", "acm/a/feedback/x", "acm/a/else"])
def test_message_on_an_unknown_topic_is_acknowledged_and_logged(
    topic: str, inbox: NarrowInbox, fair: FairInbox
) -> None:
    inbox.arrive(topic, b"x", times=3)
    with capture_logs() as logs:
        fair.fetch(0.0)
    assert (inbox.acked, fair.waiting, fair.next_batch()) == (3, False, [])
    assert [(entry["event"], entry["topic"]) for entry in logs] == [("unknown_topic", topic)]


def test_agents_without_messages_are_forgotten_when_there_are_many(
    inbox: NarrowInbox, fair: FairInbox, clock: TurnedClock
) -> None:
    """The queue of a new agent is the only one that is left, and works."""
    for number in range(10_000):
        inbox.arrive(f"acm/a{number}/feedback", b"x")
    assert len(everything(fair)) == 10_000
    clock.turn(60.0)
    inbox.arrive("acm/new/feedback", b"y")
    assert [message.agent for message in everything(fair)] == ["new"]
    assert fair._queues.keys() == {"new"}
