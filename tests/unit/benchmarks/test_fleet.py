"""The simulated fleet: its packets against a real broker, its messages against the codec of the product."""

from datetime import UTC, datetime
from time import monotonic

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.fleet import mqtt
from benchmarks.fleet.agent import SimulatedAgent, Tally
from benchmarks.fleet.driver import STATUS_PAUSE_S
from benchmarks.fleet.fleet import Fleet
from benchmarks.fleet.frames import Identity, Number, commands_in, no_op
from benchmarks.measuring.raw_mqtt import RawClient
from broker.contract.codec import decode_feedbacks, decode_status, encode
from broker.contract.dsse import SigningKey
from broker.contract.messages import Ack, Command, Control, Origin, SequenceNumber
from broker.contract.states import ControlAction, FeedbackKind
from broker.contract.topics import Channel
from broker.mosquitto.process import EmbeddedMosquitto
from broker.mqtt.connection import MqttConnection
from broker.signing.signer import Signer
from consumer.engine.status import _COUNTERS_WAIT_S
from tests.support.enrolled import enrolled_by
from tests.support.waiting import wait_for

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def command(number: int) -> Command:
    return Command(f"c{number}", "no-op", {}, Origin("n", "m"), NOW, sequence=SequenceNumber(5, number))


def sent_to(agent: SimulatedAgent, channel: str, *messages: Command | Ack | Control) -> list[tuple[str, bytes]]:
    """Return topic and payload of each message with which the agent answers."""
    frame = mqtt.publish(mqtt.publisher(f"acm/{agent.name}/{channel}"), 1, encode(list(messages)))
    ((first, body),), _ = mqtt.packets(frame)
    answers, rest = mqtt.packets(agent.receive(first, body))
    assert rest == b""
    published = [mqtt.published(body) for first, body in answers if first >> 4 == mqtt.PUBLISH]
    return [(topic, payload) for topic, _, payload in published]


@pytest.fixture
def new_agent() -> SimulatedAgent:
    return SimulatedAgent("web-01", None, Tally(), lambda *_: None, lambda _: None)


@pytest.fixture
def agent(new_agent: SimulatedAgent) -> SimulatedAgent:
    new_agent.believe(5, 0)
    return new_agent


@pytest.mark.parametrize("size", [0, 1, 120, 200, 20_000, 200_000])
def test_packets_are_found_however_they_are_divided(size: int) -> None:
    packet = mqtt.publish(mqtt.publisher("acm/web-01/feedback"), 7, b"x" * size)
    for cut in {1, 2, 3, len(packet) - 1}:
        found, rest = mqtt.packets(packet[:cut])
        assert (found, rest) == ([], packet[:cut])
    ((first, body), _), rest = mqtt.packets(packet * 2 + packet[:5])
    assert (first, rest) == (0x32, packet[:5])
    assert mqtt.published(body) == ("acm/web-01/feedback", 7, b"x" * size)


def test_packets_by_hand_reach_a_client_of_the_product_and_back() -> None:
    with EmbeddedMosquitto() as broker:
        raw = RawClient(broker.port, "raw", ["to/raw"])
        with MqttConnection(broker.url, "product", subscriptions=["to/product"]) as connection:
            assert connection.wait_connected(10)
            raw.publish("to/product", [b"a" * 300, b"b"])
            found = wait_for(lambda: [it.payload for it in connection.drain(1.0)], "the messages")
            assert found[0] == b"a" * 300
            connection.publish("to/raw", b"answer")
            raw.receive(1)
        raw.close()


def test_answer_to_commands_is_their_results(agent: SimulatedAgent) -> None:
    ((topic, payload),) = sent_to(agent, "command", command(1), command(2))
    assert topic == "acm/web-01/feedback"
    results = decode_feedbacks(payload)
    assert [(it.kind, it.command_id) for it in results] == [(FeedbackKind.RESULT, "c1"), (FeedbackKind.RESULT, "c2")]
    assert results[0].command is not None
    assert results[0].command["status"] == "processing"


def test_number_too_high_is_answered_by_a_gap(agent: SimulatedAgent) -> None:
    sent_to(agent, "command", command(1))
    ((_, payload),) = sent_to(agent, "command", command(3))
    (gap,) = decode_feedbacks(payload)
    assert (gap.kind, gap.expected) == (FeedbackKind.GAP, 2)


def test_ack_ends_the_wait_of_a_result(agent: SimulatedAgent) -> None:
    ((_, payload),) = sent_to(agent, "command", command(1))
    (result,) = decode_feedbacks(payload)
    assert result.digest is not None
    assert len(agent.waiting) == 1
    assert sent_to(agent, "ack", Ack("c1", result.digest)) == []
    assert agent.waiting == {}


def test_results_are_sent_as_far_as_the_window_goes(agent: SimulatedAgent) -> None:
    sent = [agent.end(range(first, first + 200)) for first in range(1, 1601, 200)]
    assert [bool(it) for it in sent] == [True] * 5 + [False] * 3
    first = next(iter(agent.waiting))
    assert sent_to(agent, "ack", Ack(first, "d")) != []
    assert len(agent.waiting) == 1_199


def test_known_command_counts_as_sent_twice(agent: SimulatedAgent) -> None:
    sent_to(agent, "command", command(1))
    ((_, payload),) = sent_to(agent, "command", command(1))
    assert decode_feedbacks(payload)[0].command_id == "c1"
    assert agent._tally.commands_again == agent._tally.results_again == 1


def test_new_epoch_is_in_a_status_at_once(new_agent: SimulatedAgent) -> None:
    _, (topic, payload) = sent_to(new_agent, "command", command(1))
    assert (topic, decode_status(payload).epoch) == ("acm/web-01/status", 5)
    assert [topic for topic, _ in sent_to(new_agent, "command", command(2))] == ["acm/web-01/feedback"]


def test_counters_wait_as_in_a_real_agent() -> None:
    assert STATUS_PAUSE_S == _COUNTERS_WAIT_S
    pause_s = 0.05
    fleet = Fleet(("127.0.0.1", 1), ["web-01"], {}, pause_s)
    fleet.agents[0].believe(5, 0)
    began = monotonic()
    sent_to(fleet.agents[0], "command", command(1))
    sent_to(fleet.agents[0], "command", command(2))
    assert fleet.tally.statuses == 0
    while not fleet.tally.statuses:
        fleet.run_once()
    assert monotonic() - began >= pause_s
    assert fleet.tally.statuses == 1


def test_request_to_report_is_answered_by_the_status(agent: SimulatedAgent) -> None:
    ((topic, payload),) = sent_to(agent, "control", Control(ControlAction.REPORT, "r1"))
    status = decode_status(payload)
    assert topic == "acm/web-01/status"
    assert (status.agent, status.online, status.answers) == ("web-01", True, "r1")


def test_command_of_no_server_has_an_echo_like_a_real_one() -> None:
    identity = Identity("web-01", ("e1", 7))
    (result,) = decode_feedbacks(identity.result(no_op("c1", 5, 1)))
    assert result.sequence == SequenceNumber(5, 1)
    status = decode_status(identity.status(online=True, order=(1, 1), last=Number(5, 1), waiting=0, answers=None))
    assert (status.enrolment_id, status.signing_keys_version, status.accepts_unsigned) == ("e1", 7, False)


def test_signed_commands_are_read() -> None:
    key = SigningKey(Ed25519PrivateKey.generate())
    signer = Signer("acm-server", lambda: [key], enrolled_by("e1"), now=lambda: NOW, monotonic=monotonic)
    frame = signer.sign("web-01", Channel.COMMAND, encode([command(1), command(2)]))
    assert frame is not None
    assert [it.id for it in commands_in(frame)] == ["c1", "c2"]
