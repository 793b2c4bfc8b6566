"""Which commands share a frame, what is a span, and whose trace a result continues."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from broker.app.factories import open_database
from broker.contract.codec import decode_commands, encode
from broker.contract.messages import Origin
from broker.contract.topics import Topics
from broker.contract.trace_context import TraceContext
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.mqtt.broker_limits import MAX_PACKET_BYTES
from broker.server.server import Server
from broker.server.traces import ServerTraces
from broker.tracing.port import Tracer
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, inbound_on, result
from tests.support.traced import KeptSpans

A, B = (TraceContext(f"00-{it * 32}-{it * 16}-01") for it in "ab")


class TracedWire:
    """Keeps the ids of the commands in each message, and its context."""

    backlog = backlog_bytes = 0
    max_packet_bytes = MAX_PACKET_BYTES

    def __init__(self) -> None:
        self.sent: list[tuple[list[str], TraceContext | None]] = []

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes - 64

    filled_payload_bytes = max_payload_bytes

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: TraceContext | None = None) -> bool:
        if topic.endswith("/command"):
            found = decode_commands(payload, received_at=NOW, new_id=lambda: "new")
            self.sent.append(([it.id for it in found], trace))
        return True


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


@pytest.fixture
def wire() -> TracedWire:
    return TracedWire()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    opened = Ledger(open_database("sqlite://"), now=TurnedClock().now)
    yield opened
    opened.database.close()


def server_with(ledger: Ledger, wire: TracedWire, tracer: Tracer) -> Server:
    traces = ServerTraces(tracer, Topics(), lambda: 1000.0)
    return Server(ledger, wire, Topics(), watch=traces, traces=traces)


def send(ledger: Ledger, trace: TraceContext | None) -> str:
    return ledger.add_command("web-01", CommandRequest("note", {}, Origin("me", "test"), trace=trace)).id


def answer(server: Server, command_id: str, trace: TraceContext | None) -> None:
    inbound = inbound_on("acm/web-01/feedback", encode([result(command_id)]), trace=trace)
    server.receive([inbound])


def test_only_commands_of_one_context_share_a_message(ledger: Ledger, wire: TracedWire, kept: KeptSpans) -> None:
    ids = [send(ledger, trace) for trace in (None, None, A, A, B, None)]
    server_with(ledger, wire, kept.tracer()).step()
    spans = kept.spans
    assert [sent for sent, _ in wire.sent] == [ids[:2], ids[2:4], ids[4:5], ids[5:]]
    assert [it.span_id if it else None for _, it in wire.sent] == [None, spans[0]["id"], spans[1]["id"], None]
    assert [it["parent"] for it in spans] == [A.span_id, B.span_id]
    assert spans[0]["attributes"] == {
        "messaging.system": "mqtt",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "acm/web-01/command",
        "messaging.destination.template": "acm/{agent}/command",
        "messaging.batch.message_count": 2,
        "acm.agent": "web-01",
        "acm.command.type": "note",
    }


def test_without_a_tracer_all_share_a_message_without_a_context(ledger: Ledger, wire: TracedWire) -> None:
    ids = [send(ledger, trace) for trace in (None, A, B)]
    Server(ledger, wire, Topics()).step()
    assert wire.sent == [(ids, None)]


def test_command_that_is_sent_again_is_no_span_and_has_its_first_context(
    ledger: Ledger, wire: TracedWire, kept: KeptSpans
) -> None:
    server = server_with(ledger, wire, kept.tracer())
    command_id = send(ledger, A)
    for _ in range(2):
        server.step()
        server.connected()
    assert wire.sent[1] == ([command_id], A)
    assert len(kept.spans) == 1


def test_command_that_this_server_does_not_record_keeps_its_context(
    ledger: Ledger, wire: TracedWire, kept: KeptSpans
) -> None:
    command_id = send(ledger, A)
    server_with(ledger, wire, kept.tracer(sampler=ALWAYS_OFF)).step()
    assert (wire.sent, kept.spans) == ([([command_id], A)], [])


def test_result_continues_its_message_but_only_in_the_trace_of_its_command(
    ledger: Ledger, wire: TracedWire, kept: KeptSpans
) -> None:
    server = server_with(ledger, wire, kept.tracer())
    first, second, third, untraced, fourth = (send(ledger, trace) for trace in (A, A, A, None, A))
    silent = TraceContext(f"00-{'a' * 32}-{'d' * 16}-00")
    run = TraceContext(f"00-{'a' * 32}-{'c' * 16}-01")
    for command_id, said in ((first, run), (second, B), (third, None), (untraced, B), (first, run), (fourth, silent)):
        answer(server, command_id, said)
    spans = [it for it in kept.spans if it["name"] == "process result"]
    assert [it["parent"] for it in spans] == [run.span_id, A.span_id, A.span_id, A.span_id]
    assert {it["trace"] for it in spans} == {A.trace_id}
    assert [it["attributes"]["messaging.message.id"] for it in spans] == [first, second, third, fourth]
    assert (spans[0]["kind"], spans[0]["attributes"]["acm.outcome"]) == ("CONSUMER", "success")


def test_altered_context_in_the_ledger_is_none(ledger: Ledger, wire: TracedWire, kept: KeptSpans) -> None:
    command_id = send(ledger, A)
    with ledger.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE commands SET trace = 'altered'")
    server = server_with(ledger, wire, kept.tracer())
    server.step()
    answer(server, command_id, B)
    assert (wire.sent, kept.spans, ledger.get(command_id).trace) == ([([command_id], None)], [], None)
