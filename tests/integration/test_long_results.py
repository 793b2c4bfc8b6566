"""Results that are longer than the broker takes: an agent on a Mosquitto with a low limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.contract.codec import decode_feedbacks, encode
from broker.contract.messages import Command, Feedback, Origin, Output, SequenceNumber
from broker.mqtt.connection import MqttConnection
from consumer.agent import Agent
from consumer.handler import Context, Handler, Interruption, Result
from consumer.settings import AgentConfig
from consumer.system.masking import Secret
from tests.support.brokers import tuned_mosquitto
from tests.support.makers import NOW
from tests.support.threads import on_a_thread
from tests.support.waiting import wait_for

LIMIT = 20_000


@dataclass(frozen=True)
class Say:
    output: int
    data: int


def say(command: Command, lengths: Say, context: Context) -> Result:
    return Result("Done.", {"text": "d" * lengths.data}, output=Output("o" * lengths.output))


@contextmanager
def agent_on(url: str, state: Path) -> Iterator[Agent]:
    config = AgentConfig(agent="web-01", broker=Secret(url), state=str(state), accept_unsigned=True)
    agent = Agent(config, handlers=[Handler("say", Interruption.RERUN, Say, say)])
    with on_a_thread(agent):
        yield agent


@pytest.fixture(params=["max_packet_size", "message_size_limit"])
def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A Mosquitto with a limit that it announces, or one that it answers with a PUBACK of 0x95."""
    with tuned_mosquitto(tmp_path, f"{request.param} {LIMIT}") as url:
        yield url


def test_result_longer_than_the_broker_takes_arrives_without_parts_of_it(narrow: str, tmp_path: Path) -> None:
    results: dict[str, Feedback] = {}
    with (
        MqttConnection(narrow, "desk", subscriptions=["acm/web-01/feedback"]) as desk,
        agent_on(narrow, tmp_path / "state") as agent,
    ):
        assert desk.wait_connected(10)
        wait_for(lambda: agent._connection.wait_connected(0), "the agent")
        for number, parameters in enumerate([(100, 100), (30_000, 1000), (30_000, 60_000), (1, 1)], 1):
            lengths = dict(zip(("output", "data"), parameters, strict=True))
            sent = Command(str(number), "say", lengths, Origin("t", "t"), NOW, sequence=SequenceNumber(1, number))
            desk.publish("acm/web-01/command", encode([sent]))

        def complete() -> bool:
            for delivery in desk.drain(0.1):
                for said in decode_feedbacks(delivery.payload):
                    if said.outcome is not None:
                        results[str(said.command_id)] = said
            return len(results) == 4

        wait_for(complete, "the results")
        assert agent._connection.connections == 1
    left_out = {name: [note.split()[0] for note in said.notes] for name, said in results.items()}
    assert left_out == {"1": [], "2": ["command", "output"], "3": ["command", "output", "data"], "4": []}
    assert all(said.digest and said.outcome == "success" for said in results.values())
