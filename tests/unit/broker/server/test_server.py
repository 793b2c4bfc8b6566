"""The server, on a real ledger and a wire that records what is published."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from broker.contract.states import ControlAction, FeedbackKind
from broker.contract.topics import Topics
from broker.errors import LedgerError
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.status import RecordedStatuses
from broker.ledger.tables import CommandState
from broker.ledger.turns import RecordedTurn
from broker.mqtt.broker_limits import MAX_PACKET_BYTES
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
        self.backlog_bytes = 0
        self.max_packet_bytes = MAX_PACKET_BYTES

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes - 64

    filled_payload_bytes = max_payload_bytes

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: object = None) -> bool:
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


def send(ledger: Ledger, agent: str = "web-01", size: int = 0) -> Command:
    return ledger.add_command(agent, CommandRequest("restart-agent", {"text": "x" * size}, Origin("me", "test")))


def receive(server: Server, topic: str, payload: bytes) -> None:
    server.receive([inbound_on(topic, payload)])


def commands(frame: bytes) -> list[str]:
    return [command.id for command in decode_commands(frame, received_at=NOW, new_id=lambda: "new")]


def test_several_commands_are_sent_in_one_frame_in_order(server: Server, wire: RememberingWire, ledger: Ledger) -> None:
    sent = [send(ledger).id for _ in range(3)]
    send(ledger, "web-02")
    server.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/command", "acm/web-02/command"]
    assert commands(wire.sent[0][1]) == sent
    server.step()
    assert len(wire.sent) == 2


def test_frames_do_not_exceed_the_maximum_size(server: Server, wire: RememberingWire, ledger: Ledger) -> None:
    sent = [send(ledger, size=100_000).id for _ in range(5)]
    server.step()
    frames = wire.on("command")
    assert all(len(frame) <= MAX_FRAME_BYTES for frame in frames)
    assert [name for frame in frames for name in commands(frame)] == sent


def test_result_is_in_the_ledger_before_it_is_acked(server: Server, ledger: Ledger, wire: RememberingWire) -> None:
    command = send(ledger)
    server.step()
    reported = result(command.id)
    receive(server, "acm/web-01/feedback", encode([reported]))
    (frame,) = wire.on("ack")
    assert [(ack.command_id, ack.digest) for ack in decode_acks(frame)] == [(command.id, reported.digest)]
    assert ledger.get(command.id).state is CommandState.COMPLETED


def test_malformed_messages_between_good_ones_are_skipped(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    first, second = send(ledger), send(ledger)
    server.step()
    topic = "acm/web-01/feedback"
    good = [encode([result(command.id)]) for command in (first, second)]
    frames = [good[0], b"\xff{", b'{"kind": "result"}', good[1]]
    server.receive([inbound_on(topic, frame) for frame in frames])
    assert [ledger.get(command.id).state for command in (first, second)] == [CommandState.COMPLETED] * 2
    receive(server, "acm/web-01/status", b"{}")
    with capture_logs() as logs:
        receive(server, "acm/web-01/ack", b"[]")
    assert [(log["event"], log["topic"]) for log in logs] == [("unknown_topic", "acm/web-01/ack")]


def test_sender_is_taken_from_the_topic_and_not_from_the_message(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    command = send(ledger)
    server.step()
    receive(server, "acm/web-02/feedback", encode([result(command.id)]))
    assert ledger.get(command.id).result is None
    assert [unmatched["command_id"] for unmatched in unmatched_results(ledger)] == [command.id]
    assert len(wire.on("web-02/ack")) == 1
    status = Status("web-01", True, "1", "i", "b", "g")
    receive(server, "acm/web-02/status", encode([status]))
    assert [row.status for row in ledger.agents() if row.name == "web-01"] == [None]


def test_cancels_are_sent_before_commands(server: Server, ledger: Ledger, wire: RememberingWire) -> None:
    command = send(ledger)
    server.step()
    wire.on("command")
    ledger.request_cancel(command.id)
    send(ledger)
    server.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/control", "acm/web-01/command"]
    assert [control.command_id for control in decode_controls(wire.on("control")[0])] == [command.id]


def test_gap_and_new_connection_resend_commands(server: Server, wire: RememberingWire, ledger: Ledger) -> None:
    first, second = send(ledger), send(ledger)
    server.step()
    wire.on("command")
    gap = Feedback(FeedbackKind.GAP, "web-01", "g", "i", "pending", "Gap.", sequence=second.sequence, expected=1)
    receive(server, "acm/web-01/feedback", encode([gap]))
    server.step()
    assert commands(wire.on("command")[0]) == [first.id, second.id]
    accepted = replace(gap, kind=FeedbackKind.ACCEPTED, command_id=first.id, expected=None)
    receive(server, "acm/web-01/feedback", encode([accepted]))
    server.connected()
    server.step()
    assert commands(wire.on("command")[0]) == [second.id]


def test_ledger_that_fails_at_a_new_connection_resends_later(
    server: Server, wire: RememberingWire, ledger: Ledger
) -> None:
    command = send(ledger)
    server.step()
    wire.on("command")
    server.connected()
    refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON commands BEGIN SELECT RAISE(ABORT, 'no'); END"
    with ledger.database.transaction() as connection:
        connection.execute(sa.text(refuse))
    with pytest.raises(LedgerError):
        server.step()
    with ledger.database.transaction() as connection:
        connection.execute(sa.text("DROP TRIGGER refuse"))
    server.step()
    assert commands(wire.on("command")[0]) == [command.id]


def test_chunks_are_sent_in_turn_after_commands_and_not_during_a_backlog(
    server: Server, ledger: Ledger, wire: RememberingWire, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MAX_BLOB_REQUEST_BYTES))
    blob = ledger.blobs.put(path)
    for agent in ("web-01", "web-02"):
        ledger.add_command(agent, CommandRequest("upgrade-agent", {"package": vars(blob)}, Origin("me", "test")))
        for offset in (0, 1000):  # the newer request replaces the older one
            wanted = BlobRequest(blob.sha256, offset, MAX_BLOB_REQUEST_BYTES)
            receive(server, f"acm/{agent}/blob-request", encode([wanted]))
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


def test_agent_with_a_long_queue_that_reports_gaps_delays_no_other(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    ledger.add_operation(["a", "m", "z"], "all", CommandRequest("restart-agent", {}, Origin("me", "test")))
    for _ in range(600):
        last = send(ledger, "b")
    gap = Feedback(FeedbackKind.GAP, "b", "g", "i", "pending", "Gap.", sequence=last.sequence, expected=1)
    for _ in range(3):
        receive(server, "acm/b/feedback", encode([gap]))
        server.step()
        assert wire.on("acm/b/command")
    assert [topic for topic, _ in wire.sent] == ["acm/a/command", "acm/m/command", "acm/z/command"]


def test_agents_are_served_in_turn_however_many_there_are(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    names = [f"web-{number:04}" for number in range(1200)]
    ledger.add_operation(names, "all", CommandRequest("restart-agent", {}, Origin("me", "test")))
    served = []
    for _ in range(3):
        server.step()
        served += [topic.split("/")[1] for topic, _ in wire.sent]
        wire.sent.clear()
        ledger.add_operation(["web-0000"], "one", CommandRequest("restart-agent", {}, Origin("me", "test")))
    assert served == [*names, "web-0000"]


def test_nothing_is_claimed_while_many_bytes_are_unconfirmed(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    command = send(ledger)
    wire.backlog_bytes = 16 << 20
    server.step()
    assert (wire.sent, ledger.get(command.id).state) == ([], CommandState.QUEUED)
    wire.backlog_bytes -= 1
    server.step()
    assert ledger.get(command.id).state is CommandState.SENT


def test_malformed_and_retained_blob_requests_are_refused(server: Server, wire: RememberingWire) -> None:
    good = encode([BlobRequest("0" * 64, 0, 1)])
    topic = "acm/web-01/blob-request"
    receive(server, topic, b'{"name": "../../etc/passwd", "offset": 0, "length": 1}')
    server.receive([inbound_on(topic, good, retained=True)])
    server.step()
    assert wire.sent == []
    receive(server, topic, good)
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
    receive(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))
    command = send(ledger)
    server.step()
    begun.clear()
    server.step()
    assert (set(begun), len(wire.on("command"))) == ({"BEGIN"}, 1)
    ledger.request_cancel(command.id)
    begun.clear()
    server.step()
    assert (begun.count("BEGIN IMMEDIATE"), len(wire.on("control"))) == (1, 1)


def test_silence_is_noted_once_what_waited_at_the_broker_has_arrived(wire: RememberingWire) -> None:
    clock = TurnedClock()
    with open_database("sqlite://") as database:
        ledger = Ledger(database, now=clock.now)
        server = Server(ledger, wire, TOPICS, monotonic=clock.monotonic)
        receive(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))
        known = ledger.events.end()
        clock.turn(700.0)
        server.connected()
        for connected in (False, True):
            assert ledger.events.end() == known
            clock.turn(31.0)
            server.settle(connected=connected)
        (noted,) = ledger.events.after(known).events
        assert noted.type.value == "agent_silent"


# -- statuses that may be old

LOST = Status("web-01", True, "1", "i2", "b1", "g2", order=(1, 1, 1))


def test_agent_is_asked_before_its_store_is_believed_lost(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    receive(server, "acm/web-01/status", encode([replace(LOST, store_generation="g1")]))
    sent = send(ledger)
    server.step()
    receive(server, "acm/web-01/status", encode([LOST]))
    (request,) = decode_controls(wire.on("web-01/control")[0])
    assert request.action is ControlAction.REPORT
    assert ledger.get(sent.id).state is CommandState.SENT
    receive(server, "acm/web-01/status", encode([replace(LOST, order=(1, 1, 2), answers=request.command_id)]))
    assert ledger.get(sent.id).state is CommandState.COMPLETED


# -- agents that are held


class Recipients:
    """The recipients that a test sets; any other agent is not enrolled, while others are."""

    def __init__(self) -> None:
        self.of: dict[str, Recipient] = {"web-01": Recipient(("e1",))}
        self.looked_up: list[int] = []

    def __call__(self, agents: Iterable[str]) -> dict[str, Recipient]:
        self.looked_up.append(len(list(agents)))
        return {agent: self.of.get(agent, Recipient(enrolments_exist=True)) for agent in agents}


@pytest.fixture
def recipients() -> Recipients:
    return Recipients()


@pytest.fixture
def signing(ledger: Ledger, wire: RememberingWire, recipients: Recipients) -> Server:
    clock, key = TurnedClock(), SigningKey(Ed25519PrivateKey.generate())
    signer = Signer("s", lambda: (key,), recipients, now=clock.now, monotonic=clock.monotonic)
    return Server(ledger, wire, TOPICS, signer)


def test_commands_are_held_until_the_agent_is_enrolled(
    signing: Server, ledger: Ledger, wire: RememberingWire, recipients: Recipients
) -> None:
    sent_before = send(ledger, "db-01")
    ledger.claim_due(1)
    ledger.request_cancel(sent_before.id)
    held, other = send(ledger, "db-01"), send(ledger)
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


def test_signed_commands_fit_into_what_the_broker_takes(signing: Server, ledger: Ledger, wire: RememberingWire) -> None:
    wire.max_packet_bytes = 20_000
    short = [send(ledger, size=6_000) for _ in range(4)]
    too_long = send(ledger, size=14_800)  # fits as it is, and not in base64
    signing.step()
    payloads = wire.on("command")
    assert max(map(len, payloads)) <= wire.max_payload_bytes("")
    assert [ledger.get(sent.id).state for sent in short] == [CommandState.SENT] * 4
    result = ledger.get(too_long.id).result or {}
    assert result["code"] == "invalid"
    assert "no packets of more than 20000 bytes" in result["message"]


def test_many_held_agents_do_not_delay_the_others(signing: Server, ledger: Ledger, wire: RememberingWire) -> None:
    ledger.add_operation(
        [f"db-{number}" for number in range(600)], "all", CommandRequest("restart-agent", {}, Origin("me", "test"))
    )
    send(ledger)
    signing.step()
    assert [topic for topic, _ in wire.sent] == ["acm/web-01/command"]


def test_agents_with_long_queues_are_looked_at_when_their_turn_comes(
    signing: Server, ledger: Ledger, recipients: Recipients
) -> None:
    names = [f"web-{number:04}" for number in range(500)]
    recipients.of |= {name: Recipient() for name in names}
    for _ in range(30):
        ledger.add_operation(names, "all", CommandRequest("restart-agent", {}, Origin("me", "test")))
    for _ in range(3):
        signing.step()
    assert recipients.looked_up == [500, 50, 50]


def test_held_agents_do_not_let_a_step_look_at_few(
    signing: Server, ledger: Ledger, wire: RememberingWire, recipients: Recipients
) -> None:
    names = [f"web-{number:04}" for number in range(2000)]
    recipients.of |= {name: Recipient() for name in names if name.endswith("0")}
    ledger.add_operation(names, "all", CommandRequest("restart-agent", {}, Origin("me", "test")))
    for _ in range(4):
        signing.step()
    assert len(wire.sent) == 200


def test_ack_to_a_held_agent_is_dropped_and_its_result_is_stored(
    signing: Server, ledger: Ledger, wire: RememberingWire, recipients: Recipients
) -> None:
    command = ledger.add_command("db-01", CommandRequest("restart-agent", {}, Origin("me", "test")))
    reported = encode([replace(result(command.id), agent="db-01")])
    receive(signing, "acm/db-01/feedback", reported)
    assert (wire.sent, ledger.get(command.id).state) == ([], CommandState.COMPLETED)
    recipients.of["db-01"] = Recipient(("e2",))
    receive(signing, "acm/db-01/feedback", reported)
    assert read_envelope(wire.on("db-01/ack")[0])


def test_agent_that_cannot_be_asked_is_believed_when_it_speaks(
    signing: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    """Else a lost store could keep it from ever reporting that it accepts unsigned messages."""
    for status, retained in ((replace(LOST, agent="db-01"), False), (replace(LOST, agent="db-01", version="2"), True)):
        later = replace(status, store_generation=f"g-{status.version}")
        signing.receive([inbound_on("acm/db-01/status", encode([later]), retained=retained)])
    assert [row.status.version for row in ledger.agents() if row.status] == ["1"]
    again = replace(LOST, agent="db-01", store_generation="g3", version="3")
    receive(signing, "acm/db-01/status", encode([again]))
    assert [row.status.version for row in ledger.agents() if row.status] == ["3"]
    assert wire.sent == []


# -- unexpected failures


def test_unexpected_failure_drops_only_that_message_and_is_logged_once(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def record(said: Mapping[str, Sequence[Status]], *, repeated: Collection[str]) -> RecordedTurn:
        if any(status.version == "evil" for status in said["web-01"]):
            raise ValueError("Unexpected.")
        taken.extend(status.version for status in said["web-01"])
        return RecordedTurn([], RecordedStatuses([], [], []))

    monkeypatch.setattr(ledger, "record_turn", record)
    messages = [
        inbound_on("acm/web-01/status", encode([Status("web-01", True, version, "i", "b", "g")]), retained=True)
        for version in ("1", "evil", "2", "evil")
    ]
    with capture_logs() as logs:
        server.receive(messages)
    assert taken[-2:] == ["1", "2"]
    assert [(log["event"], log["exc_info"]) for log in logs] == [("message_failed", True)]


def test_result_that_the_database_refuses_is_dropped_alone(
    server: Server, ledger: Ledger, wire: RememberingWire
) -> None:
    """A PostgreSQL that is not UTF-8 refuses some characters; here a trigger refuses one digest."""
    sent = [send(ledger) for _ in range(5)]
    server.step()
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON commands WHEN NEW.digest = 'evil' "
            "BEGIN SELECT RAISE(ABORT, 'not in this encoding'); END"
        )
    reported = [replace(result(it.id), digest="evil" if it is sent[2] else "good") for it in sent]
    with capture_logs() as logs:
        receive(server, "acm/web-01/feedback", encode(reported))
    states = [ledger.get(it.id).state for it in sent]
    assert [state == CommandState.COMPLETED for state in states] == [True, True, False, True, True]
    assert len([ack for frame in wire.on("ack") for ack in decode_acks(frame)]) == 4
    assert [(log["event"], log["command_id"]) for log in logs] == [("message_failed", sent[2].id)]


def test_what_one_agent_said_and_the_database_refuses_stops_no_other(
    server: Server, ledger: Ledger, wire: RememberingWire, begun: list[str]
) -> None:
    names = [f"web-{number:02}" for number in range(32)]
    sent = [send(ledger, name) for name in names]
    server.step()
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON commands WHEN NEW.digest = 'evil' "
            "BEGIN SELECT RAISE(ABORT, 'not in this encoding'); END"
        )
    messages = []
    for name, command in zip(names, sent, strict=True):
        said = replace(result(command.id), agent=name, digest="evil" if name == "web-07" else "good")
        messages.append(inbound_on(f"acm/{name}/feedback", encode([said])))
        messages.append(inbound_on(f"acm/{name}/status", encode([Status(name, True, "1", "i", "b", "g")])))
    begun.clear()
    server.receive(messages)
    states = {name: ledger.get(command.id).state for name, command in zip(names, sent, strict=True)}
    assert [name for name, state in states.items() if state is not CommandState.COMPLETED] == ["web-07"]
    assert len(wire.on("ack")) == 31
    assert all(row.status for row in ledger.agents())
    assert begun.count("BEGIN IMMEDIATE") <= 15, "it is found by halves"


def test_nothing_is_taken_for_lost_while_messages_wait(wire: RememberingWire) -> None:
    clock = TurnedClock()
    with open_database("sqlite://") as database:
        ledger = Ledger(database, now=clock.now)
        server = Server(ledger, wire, TOPICS, monotonic=clock.monotonic)
        receive(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))
        command = send(ledger)
        server.step()
        clock.turn(30.0)
        server.step(is_behind=True)
        assert len(wire.on("command")) == 1
        clock.turn(30.0)
        server.step(is_behind=True)
        assert commands(wire.on("command")[0]) == [command.id], "a minute later, however many wait"
        clock.turn(30.0)
        server.step()
        assert commands(wire.on("command")[0]) == [command.id]


def test_message_is_not_processed_while_the_ledger_fails(
    server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(said: Mapping[str, Sequence[Status]], *, repeated: Collection[str]) -> RecordedTurn:
        raise LedgerError("The disk is full.")

    monkeypatch.setattr(ledger, "record_turn", fail)
    with pytest.raises(LedgerError):
        receive(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))


@pytest.mark.parametrize("member", ["epoch", "closed_epoch", "last_sequence"])
@pytest.mark.parametrize("number", [2**63 - 1, 2**63 - 2, 2**53])
def test_status_with_numbers_beyond_the_limit_is_refused(
    server: Server, ledger: Ledger, wire: RememberingWire, member: str, number: int
) -> None:
    reported = {**to_json(Status("evil", True, "1", "i", "b", "g", epoch=1)), member: number}
    server.receive([inbound_on("acm/evil/status", json.dumps(reported).encode(), retained=True)])
    assert ledger.agents() == []
    sent = send(ledger, "evil")
    server.step()
    assert commands(wire.on("command")[0]) == [sent.id]


@pytest.mark.parametrize("epoch", [2**53 - 1, 2**53 - 2**40])
def test_status_cannot_use_up_the_epochs(server: Server, wire: RememberingWire, epoch: int, ledger: Ledger) -> None:
    """A retained one of a taken-over broker would leave the ledger without a number that the agent reads."""
    sent = send(ledger)
    status = Status("web-01", True, "1", "i", "b", "g", epoch=epoch, closed_epoch=epoch, last_sequence=2**53 - 1)
    for generation in ("g", "h", "g"):
        receive(server, "acm/web-01/status", encode([replace(status, store_generation=generation)]))
    server.step()
    assert commands(wire.on("command")[0]) == [sent.id]


def test_messages_are_expected_while_an_agent_is_online(server: Server, ledger: Ledger) -> None:
    send(ledger, "web-02")
    assert not server.expects_messages()
    receive(server, "acm/web-01/status", encode([Status("web-01", True, "1", "i", "b", "g")]))
    assert server.expects_messages()
    receive(server, "acm/web-01/status", encode([Status("web-01", False, "1", "i", "b", "g")]))
    assert not server.expects_messages()
