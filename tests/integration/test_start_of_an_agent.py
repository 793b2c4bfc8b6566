"""What the log of an agent says first."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.mosquitto.process import EmbeddedMosquitto
from broker.mqtt.connection import MqttConnection
from consumer.agent import Agent
from consumer.settings import AgentConfig
from consumer.system.masking import Secret
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for


def test_start_is_logged_before_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = MqttConnection.start

    def start_while_the_broker_answers_first(connection: MqttConnection) -> None:
        start(connection)
        assert connection.wait_connected(10)

    monkeypatch.setattr(MqttConnection, "start", start_while_the_broker_answers_first)
    with EmbeddedMosquitto() as broker, capture_logs() as logs:
        url, state = Secret(broker.url), str(tmp_path / "state")
        with on_a_thread(Agent(AgentConfig(agent="web-01", broker=url, state=state, accept_unsigned=True))):
            wait_for(lambda: {"agent_started", "mqtt_connected"} <= {it["event"] for it in logs}, "both lines")
    events = [it["event"] for it in logs]
    assert events.index("agent_started") < events.index("mqtt_connected")
