"""What a broker announces in its CONNACK is obeyed: against a Mosquitto with its limits, and a scripted broker."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.app.config import ServerConfig
from broker.app.server import ServerProcess
from broker.contract.codec import decode_blob_chunks, decode_commands, encode
from broker.contract.messages import BlobRequest, Origin
from broker.ledger.enqueue import CommandRequest
from broker.mqtt import reconnect_policy
from broker.mqtt.connection import MqttConnection
from tests.support.brokers import tuned_mosquitto
from tests.support.fakes.mqtt5_broker import PUBLISH, ScriptedBroker, connack, scripted_broker
from tests.support.makers import NOW
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for

LIMIT = 60_000
TOPIC = "acm/web-01/command"
RECEIVE_MAXIMUM_5 = bytes([33, 0, 5])
MAXIMUM_QOS_0 = bytes([36, 0])
RETAIN_UNAVAILABLE = bytes([37, 0])


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[str]:
    with tuned_mosquitto(tmp_path, f"max_packet_size {LIMIT}") as url:
        yield url


@pytest.fixture
def refusing(tmp_path: Path) -> Iterator[str]:
    """A Mosquitto that announces no limit, and answers a longer payload with a PUBACK of 0x95."""
    with tuned_mosquitto(tmp_path, f"message_size_limit {LIMIT}") as url:
        yield url


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    with scripted_broker() as broker:
        yield broker


@contextmanager
def server_on(url: str, directory: Path) -> Iterator[ServerProcess]:
    """Run a server whose ledger has two commands, for web-01 and web-02; the first one is too long for the broker."""
    process = ServerProcess(ServerConfig(broker=url, ledger=f"sqlite:///{directory}/ledger.db", ca=str(directory)))
    with on_a_thread(process):
        yield process


def configuration_of(size: int) -> CommandRequest:
    return CommandRequest("apply-centralized-configuration", {"content": "x" * size}, Origin("me", "test"))


def test_longest_payload_is_delivered_and_a_longer_one_is_kept_from_the_broker(narrow: str) -> None:
    with (
        MqttConnection(narrow, "web-01", subscriptions=[TOPIC]) as agent,
        MqttConnection(narrow, "server") as server,
    ):
        assert agent.wait_connected(10)
        assert server.wait_connected(10)
        room = server.max_payload_bytes(TOPIC)
        assert LIMIT - 64 < room < LIMIT
        assert [server.publish(TOPIC, bytes(size)) for size in (room + 1, room)] == [False, True]
        assert [len(delivery.payload) for delivery in agent.drain(10)] == [room]
        assert (server.connections, agent.connections) == (1, 1)


def test_command_too_long_for_the_broker_ends_alone(narrow: str, tmp_path: Path) -> None:
    with (
        MqttConnection(narrow, "web-02", subscriptions=["acm/web-02/command"]) as agent,
        server_on(narrow, tmp_path) as server,
    ):
        assert agent.wait_connected(10)
        too_long = server.ledger.add_command("web-01", configuration_of(100_000))
        fitting = server.ledger.add_command("web-02", configuration_of(40_000))
        (delivery,) = wait_for(lambda: agent.drain(0.1), "the command that fits")
        (arrived,) = decode_commands(delivery.payload, received_at=NOW, new_id=lambda: "new")
        assert arrived.id == fitting.id
        row = server.ledger.get(too_long.id)
        result = row.result or {}
        assert (result["outcome"], result["code"]) == ("error", "invalid")
        assert f"the broker takes no packets of more than {LIMIT} bytes" in result["message"]
        assert server._connection.connections == 1


def test_message_refused_as_too_large_keeps_its_connection_and_sets_the_limit(refusing: str) -> None:
    with (
        MqttConnection(refusing, "web-01", subscriptions=[TOPIC]) as agent,
        MqttConnection(refusing, "server") as server,
    ):
        assert agent.wait_connected(10)
        assert server.wait_connected(10)
        assert server.publish(TOPIC, bytes(LIMIT + 1))
        wait_for(lambda: server.problem, "the refusal")
        assert "acm/web-01/command (packet too large)" in (server.problem or "")
        assert [server.publish(TOPIC, bytes(size)) for size in (LIMIT + 1, LIMIT)] == [False, True]
        assert [len(delivery.payload) for delivery in agent.drain(10)] == [LIMIT]
        assert (server.connections, agent.connections) == (1, 1)


def test_last_will_that_is_too_large_is_left_out(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect_policy, "_FIRST_WAIT_S", 0.02)
    with MqttConnection(refusing, "web-01", will=("acm/web-01/status", lambda: bytes(LIMIT + 1))) as agent:
        wait_for(lambda: agent.connected, "the connection")
        assert "takes no last will as long as this one" in (agent.problem or "")
        assert agent.publish("acm/web-01/status", b"x")
        wait_for(lambda: agent.readiness_problem() is None, "the PUBACK")


def test_command_refused_as_too_large_ends_alone(refusing: str, tmp_path: Path) -> None:
    with (
        MqttConnection(refusing, "web-01", subscriptions=["acm/web-01/command"]) as agent,
        server_on(refusing, tmp_path) as server,
    ):
        assert agent.wait_connected(10)
        too_long = server.ledger.add_command("web-01", configuration_of(100_000))
        wait_for(lambda: server.ledger.get(too_long.id).result, "the result")
        result = server.ledger.get(too_long.id).result or {}
        assert (result["outcome"], result["code"]) == ("error", "invalid")
        assert "the broker takes no packets of more than 10" in result["message"]
        fitting = [server.ledger.add_command("web-01", configuration_of(40_000)) for _ in range(6)]
        arrived: list[str] = []

        def complete() -> bool:
            for delivery in agent.drain(0.1):
                commands = decode_commands(delivery.payload, received_at=NOW, new_id=lambda: "new")
                arrived.extend(command.id for command in commands)
            return {command.id for command in fitting} <= set(arrived)

        wait_for(complete, "the commands that fit")
        assert server._connection.connections == 1


@pytest.mark.parametrize("code", [0x95, 0x96, 0xFF])
def test_reason_code_that_mqtt_does_not_list_there_is_a_refusal(scripted: ScriptedBroker, code: int) -> None:
    scripted.puback = scripted.suback = code
    with MqttConnection(scripted.url, "web-01", subscriptions=[TOPIC]) as agent:
        assert agent.wait_connected(10)
        agent.publish("t", b"x")
        name = "packet too large" if code == 0x95 else f"reason code 0x{code:02X}"
        wait_for(lambda: f"messages on t ({name}" in (agent.problem or ""), "the refused message")
        assert f"refuses to subscribe {TOPIC} ({name}" in (agent.problem or "")
        assert agent.connections == 1


@pytest.mark.parametrize("narrowness", ["narrow", "refusing"])
def test_blob_arrives_in_chunks_that_the_broker_takes(
    narrowness: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue(narrowness)
    content = bytes(range(256)) * 800
    file = tmp_path / "file"
    file.write_bytes(content)
    chunks: dict[int, bytes] = {}
    with (
        MqttConnection(url, "web-01", subscriptions=["acm/web-01/blob-chunk"]) as agent,
        server_on(url, tmp_path) as server,
    ):
        assert agent.wait_connected(10)
        wait_for(lambda: server._connection.wait_connected(0), "the server")
        blob = server.ledger.blobs.put(file)
        server.ledger.add_command(
            "web-01", CommandRequest("upgrade-agent", {"package": vars(blob)}, Origin("me", "test"))
        )

        def complete() -> bool:
            arrived = agent.drain(0.2)
            for delivery in arrived:
                chunks.update({it.offset: it.data or b"" for it in decode_blob_chunks(delivery.payload)})
            at = sum(map(len, chunks.values()))
            if at < len(content) and not arrived:
                agent.publish("acm/web-01/blob-request", encode([BlobRequest(blob.sha256, at, len(content) - at)]))
            return at == len(content)

        wait_for(complete, "all chunks")
        assert b"".join(chunks[offset] for offset in sorted(chunks)) == content
        assert server._connection.connections == 1


def test_no_more_messages_are_in_flight_than_the_broker_allows(scripted: ScriptedBroker) -> None:
    scripted.connack = connack(RECEIVE_MAXIMUM_5)
    scripted.acknowledges = False
    with MqttConnection(scripted.url, "web-01") as agent:
        assert agent.wait_connected(10)
        assert all(agent.publish(TOPIC, b"x") for _ in range(20))
        wait_for(lambda: len(scripted.of(PUBLISH)) == 5, "five messages")
        scripted.acknowledge_all()
        wait_for(lambda: len(scripted.of(PUBLISH)) == 10, "five more")


def test_broker_without_qos_1_and_retain_gets_neither(scripted: ScriptedBroker) -> None:
    scripted.connack = connack(MAXIMUM_QOS_0 + RETAIN_UNAVAILABLE)
    with MqttConnection(scripted.url, "web-01") as agent:
        assert agent.wait_connected(10)
        agent.publish("acm/web-01/status", b"x", retain=True)
        wait_for(lambda: scripted.of(PUBLISH), "the status")
        assert [packet.flags for packet in scripted.of(PUBLISH)] == [0]
