"""What the broker refuses on a connection that stands, and a second client of its name: reported, and tried again."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.mqtt import reconnect_policy
from broker.mqtt.connection import MqttConnection
from tests.support.brokers import tuned_mosquitto
from tests.support.fakes.mqtt5_broker import CONNECT, PUBLISH, SUBSCRIBE, ScriptedBroker, connack, scripted_broker
from tests.support.threads import no_thread_left
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "acm/web-01/command"
NOT_AUTHORIZED, QUOTA_EXCEEDED, NO_SUBSCRIBERS, TAKEN_OVER = 0x87, 0x97, 0x10, 0x8E
QOS_NOT_SUPPORTED, RETAIN_NOT_SUPPORTED = 0x9B, 0x9A
MAXIMUM_QOS_0, RETAIN_UNAVAILABLE, NO_WILDCARDS = bytes((36, 0)), bytes((37, 0)), bytes((40, 0))
AN_HOUR_OF_SESSION = bytes((17, 0, 0, 0x0E, 0x10))
KEEPALIVE_NEVER = bytes((19, 0, 0))
CALLED_WEB_99 = bytes((18, 0, 6)) + b"web-99"


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    with scripted_broker() as broker:
        yield broker


def drained(connection: MqttConnection, condition: Any) -> Any:
    """Return a condition to wait for, which lets the connection work meanwhile."""

    def check() -> Any:
        connection.drain(0.05)
        return condition()

    return check


@pytest.mark.parametrize("code", [NOT_AUTHORIZED, QUOTA_EXCEEDED, 0x80])
def test_refused_subscription_is_told_and_tried_again(scripted: ScriptedBroker, code: int) -> None:
    scripted.suback = code
    with MqttConnection(scripted.url, "web-01", subscriptions=[TOPIC, "acm/web-01/ack"]) as agent:
        assert agent.wait_connected(10)
        assert "refuses to subscribe acm/web-01/command (" in (agent.problem or "")
        scripted.suback = 1
        wait_for(drained(agent, lambda: agent.problem is None), "the subscription")
        assert (len(scripted.of(SUBSCRIBE)), agent.connections) == (2, 1)


def test_message_refused_by_an_access_list_is_told_until_one_is_accepted(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\n")
    # structlog loses a line that is logged while it begins to capture, so the connection is made after that.
    with (
        tuned_mosquitto(tmp_path, f"acl_file {rules}") as url,
        capture_logs() as lines,
        MqttConnection(url, "web-01") as agent,
    ):
        assert agent.wait_connected(10)
        for _ in range(50):
            agent.publish("acm/web-01/feedback", b"x")
        wait_for(lambda: agent.backlog == 0, "all answers")
        assert agent.problem == (
            "The broker refuses messages on acm/web-01/feedback (not authorized); they are sent again later."
        )
        assert [line["event"] for line in lines] == ["mqtt_connected", "mqtt_publish_refused"]
        rules.write_text("topic readwrite #\n")
        os.kill(wait_for(lambda: mosquitto_pid(url), "mosquitto"), signal.SIGHUP)

        def accepted() -> bool:
            agent.publish("acm/web-01/feedback", b"x")
            return agent.problem is None

        wait_for(accepted, "a message that is accepted")
        assert agent.connections == 1


def mosquitto_pid(url: str) -> int | None:
    """Return the process that was started with the configuration for this port."""
    port = url.rsplit(":", 1)[1]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"mosquitto-{port}.conf".encode() in line:
            return int(process.name)
    return None


def test_message_that_nobody_subscribed_is_no_refusal(scripted: ScriptedBroker) -> None:
    scripted.puback = NO_SUBSCRIBERS
    with MqttConnection(scripted.url, "web-01") as agent:
        assert agent.wait_connected(10)
        agent.publish(TOPIC, b"x")
        wait_for(lambda: agent.readiness_problem() is None, "the PUBACK")
        assert agent.problem is None


def test_client_whose_session_was_taken_over_says_so_and_yields(scripted: ScriptedBroker) -> None:
    scripted.goodbye = TAKEN_OVER
    with capture_logs() as lines, MqttConnection(scripted.url, "web-01") as agent:
        lost = wait_for(lambda: [it for it in lines if it["event"] == "mqtt_connection_lost"], "the takeover")[0]
        assert lost["reason"] == "another client connected as web-01: two programs use one name"
        assert lost["retry_in_s"] >= 120
        assert f"The connection was lost: {lost['reason']}." == agent.problem == agent.last_error


def test_two_clients_of_one_name_stop_ending_each_others_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_policy, "_FIRST_WAIT_S", 0.02)  # the number of connections counts here
    with (
        tuned_mosquitto(tmp_path) as url,
        MqttConnection(url, "web-01") as one,
        MqttConnection(url, "web-01") as other,
    ):

        def suspected() -> Any:
            return [it for it in (one, other) if "probably another client connected as web-01" in (it.last_error or "")]

        loser = wait_for(suspected, "one of them to give way")[0]
        winner = one if loser is other else other
        wait_for(lambda: winner.connected, "the other one to be connected")
        assert not loser.connected
        assert winner.connections + loser.connections < 20


def test_what_the_broker_lacks_is_told_once(scripted: ScriptedBroker) -> None:
    scripted.connack = connack(MAXIMUM_QOS_0 + RETAIN_UNAVAILABLE + NO_WILDCARDS + AN_HOUR_OF_SESSION)
    with capture_logs() as lines, MqttConnection(scripted.url, "x", subscriptions=["acm/+/status"]) as server:
        assert server.wait_connected(10)
        found = [line["reason"] for line in lines if line["event"] == "mqtt_broker_lacks"]
    for text in ("QoS 0 only", "no retained messages", "no wildcard subscriptions", "for 3600 s, not for 604800 s"):
        assert len([reason for reason in found if text in reason]) == 1
        assert text in (server.problem or "")
    assert not scripted.of(SUBSCRIBE)


def test_limit_that_was_not_announced_is_learned_from_the_disconnect(
    scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_policy, "_FIRST_WAIT_S", 0.02)
    scripted.largest = 50_000
    with MqttConnection(scripted.url, "web-01") as agent:
        assert agent.wait_connected(10)
        assert agent.publish("t", bytes(60_000))
        wait_for(lambda: agent.connections == 2 and agent.connected, "the second connection")
        assert not agent.publish("t", bytes(60_000))
        assert agent.publish("t", bytes(40_000))
        wait_for(lambda: agent.readiness_problem() is None, "the PUBACK")
        assert (agent.connections, agent.max_packet_bytes < 60_100) == (2, True)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_network_thread_that_cannot_start_is_started_later(scripted: ScriptedBroker) -> None:
    def die_once() -> None:
        if agent.connections == 1:
            raise SystemExit

    agent = MqttConnection(scripted.url, "web-01", on_connect=die_once)
    with agent:
        wait_for(lambda: not [it for it in threading.enumerate() if it.name.startswith("paho")], "its thread to end")
        with no_thread_left():
            assert agent.drain(0.0) == []
            assert agent.last_error == "The connection has no thread: can't start new thread."
            assert not agent.connected
        wait_for(drained(agent, lambda: agent.connections == 2), "the second connection")
    gc.collect()  # paho leaves the dead thread's sockets to the collector, which warns


def test_broker_that_closes_after_a_refused_subscription_is_not_taken_for_another_client(
    scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_policy, "_FIRST_WAIT_S", 0.001)
    scripted.suback, scripted.closes_after_suback = NOT_AUTHORIZED, True
    with MqttConnection(scripted.url, "web-01", subscriptions=[TOPIC]) as agent:
        wait_for(lambda: agent.connections >= 7, "several connections")
        wait_for(lambda: "after this: The broker refuses to subscribe" in (agent.last_error or ""), "the reason")
        assert "another client" not in (agent.last_error or "")


def test_last_will_is_lowered_to_what_the_broker_takes(
    scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_policy, "_FIRST_WAIT_S", 0.02)
    scripted.connacks = [connack(reason=QOS_NOT_SUPPORTED), connack(reason=RETAIN_NOT_SUPPORTED)]
    with MqttConnection(scripted.url, "web-01", will=("acm/web-01/status", lambda: b"off")) as agent:
        assert agent.wait_connected(10)
    flags = [packet.body[7] & 0b111000 for packet in scripted.of(CONNECT)]  # MQTT 5 section 3.1.2.3
    assert flags == [0b101000, 0b100000, 0b000000]


def test_assigned_client_id_is_kept_and_keep_alive_goes_on(
    scripted: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnect_policy, "_FIRST_WAIT_S", 0.02)
    scripted.connacks = [connack(CALLED_WEB_99 + KEEPALIVE_NEVER)]
    with MqttConnection(scripted.url, "") as agent:
        assert agent.wait_connected(10)
        assert agent._client._client._keepalive == 30
        scripted.drop()
        wait_for(lambda: agent.connections == 2, "the second connection")
    assert b"web-99" in scripted.of(CONNECT)[1].body


def test_agent_reports_the_problem_of_its_connection_in_its_status(scripted: ScriptedBroker, tmp_path: Path) -> None:
    scripted.suback = NOT_AUTHORIZED
    argv = (sys.executable, "-m", "consumer", "run", "--agent", "web-01", "--broker", scripted.url)
    with (tmp_path / "log").open("wb") as log:
        agent = subprocess.Popen(
            (*argv, "--accept-unsigned", "--state", str(tmp_path / "state")), cwd=ROOT, stdout=log, stderr=log
        )

    def last_error() -> str:
        statuses = [packet.payload for packet in scripted.of(PUBLISH) if packet.topic == "acm/web-01/status"]
        return str(json.loads(statuses[-1]).get("last_error")) if statuses else ""

    try:
        wait_for(lambda: "refuses to subscribe acm/web-01/command (not authorized)" in last_error(), "the status")
        scripted.suback = 1
        wait_for(lambda: last_error() == "None", "the status without it")
    finally:
        agent.terminate()
        assert agent.wait(15) == 0, (tmp_path / "log").read_text()
