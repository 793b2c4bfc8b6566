"""The server's side of the wire, on a real ledger and a wire that remembers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from broker.app.factories import open_database
from broker.contract.codec import (
    MAX_FRAME_BYTES,
    decode_acks,
    decode_blob_chunks,
    decode_commands,
    decode_controls,
    encode,
    to_json,
)
from broker.contract.dsse import SigningKey, read_envelope
from broker.contract.messages import MAX_BLOB_REQUEST_BYTES, BlobRequest, Command, Feedback, Origin, Status
from broker.contract.states import FeedbackKind
from broker.contract.topics import Topics
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import CommandState
from broker.server.server import Server
from broker.signing.recipient import Recipient
from broker.signing.signer import Signer
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, inbound_on, result
from tests.support.unmatched_results import unmatched_results

TOPICS = Topics()


class RememberingWire:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.backlog = 0

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> bool:
        self.sent.append((topic, payload))
        return True

    def on(self, channel: str) -> list[bytes]:
        taken = [payload for topic, payload in self.sent if topic.endswith(channel)]
        self.sent = [(topic, payload) for topic, payload in self.sent if not topic.endswith(channel)]
        return taken


@pytest.fixture
def wire() -> RememberingWire:
    return RememberingWire()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    opened = Ledger(open_database("sqlite://"), now=TurnedClock().now)
    yield opened
    opened.database.close()


@pytest.fixture
def server(ledger: Ledger, wire: RememberingWire) -> Server:
    return Server(ledger, wire, TOPICS)


def send(server: Server, agent: str = "web-01", size: int = 0) -> Command:
    return server.send_command(agent, CommandRequest("restart-agent", {"text": "x" * size}, Origin("me", "test")))


def say(server: Server, topic: str, payload: bytes) -> None:
    server.receive([inbound_on(topic, payload)])


def commands(frame: bytes) -> list[str]:
    return [command.id for command in decode_commands(frame, received_at=NOW, new_id=lambda: "new")]


def test_several_commands_travel_in_one_frame_in_order(server: Server, wire: RememberingWire) -> None:
    sent = [send(server).id for _ in range(3)]
    send(server, "web-02")
    server.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/command", "acm/web-02/command"]
    assert commands(wire.sent[0][1]) == sent
    server.step()
    assert len(wire.sent) == 2


def test_frames_keep_to_the_size_cap(server: Server, wire: RememberingWire) -> None:
    sent = [send(server, size=100_000).id for _ in range(5)]
    server.step()
    frames = wire.on("command")
    assert all(len(frame) <= MAX_FRAME_BYTES for frame in frames)
    assert [name for frame in frames for name in commands(frame)] == sent


def test_a_result_is_in_the_ledger_before_it_is_acked(server: Server, ledger: Ledger, wire: RememberingWire) -> None:
    command = send(server)
    server.step()
    said = result(command.id)
    say(server, "acm/web-01/feedback", encode([said]))
    (frame,) = wire.on("ack")
    assert [(ack.command_id, ack.digest) for ack in decode_acks(frame)] == [(command.id, said.digest)]
    assert ledger.get(command.id).state is CommandState.COMPLETED


def test_garbage_between_two_good_messages_stops_nothing(server: Server, ledger: Ledger, wire: RememberingWire) -> None:
    first, second = send(server), send(server)
    server.step()
    topic = "acm/web-01/feedback"
    good = [encode([result(command.id)]) for command in (first, second)]
    frames = [good[0], b"\xff{", b'{"kind": "result"}', good[1]]
    server.receive([inbound_on(topic, frame) for frame in frames])
    assert [ledger.get(command.id).state for command in (first, second)] == [CommandState.COMPLETED] * 2
    say(server, "acm/web-01/status", b"{}")
    with capture_logs() as logs:
        say(server, "acm/web-01/ack", b"[]")
    assert [(log["event"], log["topic"]) for log in logs] == [("unknown_topic", "acm/web-01/ack")]


def test_the_topic_and_not_the_message_says_whose_it_is(server: Server, ledger: Ledger, wire: RememberingWire) -> None:
    command = send(server)
    server.step()
    say(server, "acm/web-02/feedback", encode([result(command.id)]))
    assert ledger.get(command.id).result is None
    assert [stray["command_id"] for stray in unmatched_results(ledger)] == [command.id]
    assert len(wire.on("web-02/ack")) == 1
    status = Status("web-01", True, "1", "i", "b", "g")
    say(server, "acm/web-02/status", encode([status]))
    assert [row.status for row in ledger.agents() if row.name == "web-01"] == [None]


def test_cancels_do_not_wait_behind_commands(server: Server, ledger: Ledger, wire: RememberingWire) -> None:
    command = send(server)
    ledger.request_cancel(command.id)
    server.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/control", "acm/web-01/command"]
    assert [control.command_id for control in decode_controls(wire.on("control")[0])] == [command.id]


def test_a_gap_and_a_new_connection_send_again(server: Server, wire: RememberingWire) -> None:
    first, second = send(server), send(server)
    server.step()
    wire.on("command")
    gap = Feedback(FeedbackKind.GAP, "web-01", "g", "i", "pending", "Gap.", sequence=second.sequence, expected=1)
    say(server, "acm/web-01/feedback", encode([gap]))
    server.step()
    assert commands(wire.on("command")[0]) == [first.id, second.id]
    accepted = replace(gap, kind=FeedbackKind.ACCEPTED, command_id=first.id, expected=None)
    say(server, "acm/web-01/feedback", encode([accepted]))
    server.connected()
    server.step()
    assert commands(wire.on("command")[0]) == [second.id]


def test_agents_get_chunks_in_turn_behind_commands_and_none_while_many_messages_wait(
    server: Server, ledger: Ledger, wire: RememberingWire, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MAX_BLOB_REQUEST_BYTES))
    blob = ledger.blobs.put(path)
    for agent in ("web-01", "web-02"):
        server.send_command(agent, CommandRequest("upgrade-agent", {"package": vars(blob)}, Origin("me", "test")))
        for offset in (0, 1000):  # the newer takes the place of the older
            wanted = BlobRequest(blob.sha256, offset, MAX_BLOB_REQUEST_BYTES)
            say(server, f"acm/{agent}/blob-request", encode([wanted]))
    wire.backlog = 100
    server.step()
    assert [topic.split("/")[2] for topic, _ in wire.sent] == ["command", "command"]
    wire.on("command")
    wire.backlog = 0
    server.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/blob-chunk", "acm/web-02/blob-chunk"] * 4
    server.step()
    server.step()
    assert all(len(frame) <= MAX_FRAME_BYTES for _, frame in wire.sent)
    for agent in ("web-01", "web-02"):
        chunks = [chunk for frame in wire.on(f"{agent}/blob-chunk") for chunk in decode_blob_chunks(frame)]
        assert [chunk.offset for chunk in chunks] == [1000, *range(1 << 17, 1 << 20, 1 << 17)]
        assert b"".join(chunk.data or b"" for chunk in chunks) == path.read_bytes()[1000:]


def test_bad_and_retained_requests_for_blobs_are_refused(server: Server, wire: RememberingWire) -> None:
    good = encode([BlobRequest("0" * 64, 0, 1)])
    topic = "acm/web-01/blob-request"
    say(server, topic, b'{"name": "../../etc/passwd", "offset": 0, "length": 1}')
    server.receive([inbound_on(topic, good, retained=True)])
    server.step()
    assert wire.sent == []
    say(server, topic, good)
    server.step()
    assert [chunk.data for chunk in decode_blob_chunks(wire.on("blob-chunk")[0])] == [None]


@pytest.fixture
def begun() -> Iterator[list[str]]:
    """Collect how each transaction begins."""
    statements: list[str] = []

    def collect(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("BEGIN"):
            statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", collect)
    yield statements
    sa.event.remove(sa.Engine, "before_cursor_execute", collect)


def test_idle_step_begins_no_write_transaction(
    server: Server, ledger: Ledger, wire: RememberingWire, begun: list[str]
) -> None:
    say(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))
    command = send(server)
    server.step()
    begun.clear()
    server.step()
    assert (set(begun), len(wire.on("command"))) == ({"BEGIN"}, 1)
    ledger.request_cancel(command.id)
    begun.clear()
    server.step()
    assert (begun.count("BEGIN IMMEDIATE"), len(wire.on("control"))) == (1, 1)


# -- agents that nothing may be said to


class Recipients:
    """How agents stand, as a test says: those that are not named are strangers among enrolled ones."""

    def __init__(self) -> None:
        self.of: dict[str, Recipient] = {"web-01": Recipient(("e1",))}

    def __call__(self, agents: Iterable[str]) -> dict[str, Recipient]:
        return {agent: self.of.get(agent, Recipient(enrolments_exist=True)) for agent in agents}


@pytest.fixture
def recipients() -> Recipients:
    return Recipients()


@pytest.fixture
def signing(ledger: Ledger, wire: RememberingWire, recipients: Recipients) -> Server:
    clock, key = TurnedClock(), SigningKey(Ed25519PrivateKey.generate())
    signer = Signer("s", lambda: (key,), recipients, now=clock.now, monotonic=clock.monotonic)
    return Server(ledger, wire, TOPICS, signer)


def test_what_an_agent_would_refuse_waits_until_it_is_enrolled(
    signing: Server, ledger: Ledger, wire: RememberingWire, recipients: Recipients
) -> None:
    held, other = send(signing, "db-01"), send(signing)
    ledger.request_cancel(held.id)
    with capture_logs() as logs:
        signing.step()
        signing.step()
    assert [(log["event"], log["agent"]) for log in logs] == [("commands_are_held", "db-01")]
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/command"]
    assert [ledger.get(sent.id).state for sent in (held, other)] == [CommandState.QUEUED, CommandState.SENT]
    recipients.of["db-01"] = Recipient(("e2",))
    signing.step()
    assert [topic for topic, _ in wire.sent[1:]] == ["acm/db-01/control", "acm/db-01/command"]
    assert all(read_envelope(payload) for _, payload in wire.sent)


def test_many_that_are_held_do_not_hold_up_the_others(signing: Server, ledger: Ledger, wire: RememberingWire) -> None:
    ledger.add_operation(
        [f"db-{number}" for number in range(600)], "all", CommandRequest("restart-agent", {}, Origin("me", "test"))
    )
    send(signing)
    signing.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/command"]


def test_an_ack_that_would_be_refused_is_not_sent_but_the_result_is_kept(
    signing: Server, ledger: Ledger, wire: RememberingWire, recipients: Recipients
) -> None:
    command = ledger.add_command("db-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    said = encode([replace(result(command.id), agent="db-01")])
    say(signing, "acm/db-01/feedback", said)
    assert (wire.sent, ledger.get(command.id).state) == ([], CommandState.COMPLETED)
    recipients.of["db-01"] = Recipient(("e2",))
    say(signing, "acm/db-01/feedback", said)
    assert read_envelope(wire.on("db-01/ack")[0])


# -- what nobody foresaw


def test_a_delivery_that_fails_unforeseen_is_dropped_alone_and_told_once(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def record(status: Status) -> None:
        if status.version == "evil":
            raise ValueError("Nobody foresaw this.")
        taken.append(status.version)

    monkeypatch.setattr(ledger, "record_status", record)
    messages = [
        inbound_on("acm/web-01/status", encode([Status("web-01", True, version, "i", "b", "g")]), retained=True)
        for version in ("1", "evil", "2", "evil")
    ]
    with capture_logs() as logs:
        server.receive(messages)
    assert taken[-2:] == ["1", "2"]
    assert [(log["event"], log["exc_info"]) for log in logs] == [("message_failed", True)]


def test_a_ledger_that_fails_keeps_the_delivery_for_later(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(status: Status) -> None:
        raise LedgerError("The disk is full.")

    monkeypatch.setattr(ledger, "record_status", fail)
    with pytest.raises(LedgerError):
        say(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))


@pytest.mark.parametrize("member", ["epoch", "closed_epoch", "last_sequence"])
@pytest.mark.parametrize("number", [2**63 - 1, 2**63 - 2, 2**53])
def test_a_status_whose_numbers_no_ledger_could_hold_is_refused(
    server: Server, ledger: Ledger, wire: RememberingWire, member: str, number: int
) -> None:
    said = {**to_json(Status("evil", True, "1", "i", "b", "g", epoch=1)), member: number}
    server.receive([inbound_on("acm/evil/status", json.dumps(said).encode(), retained=True)])
    assert ledger.agents() == []
    sent = send(server, "evil")
    server.step()
    assert commands(wire.on("command")[0]) == [sent.id]


@pytest.mark.parametrize("epoch", [2**53 - 1, 2**53 - 2**40])
def test_no_status_uses_up_the_epochs(server: Server, wire: RememberingWire, epoch: int) -> None:
    """A retained one of a taken-over broker would leave the ledger without a number that the agent reads."""
    sent = send(server)
    status = Status("web-01", True, "1", "i", "b", "g", epoch=epoch, closed_epoch=epoch, last_sequence=2**53 - 1)
    for generation in ("g", "h", "g"):
        say(server, "acm/web-01/status", encode([replace(status, store_generation=generation)]))
    server.step()
    assert commands(wire.on("command")[0]) == [sent.id]
