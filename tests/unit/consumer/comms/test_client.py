"""Which messages the agent takes over from its connection."""

from structlog.testing import capture_logs

from broker.contract.topics import Channel, Topics
from consumer.comms.client import AgentCommsClient
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.wire import FakeBroker

FOREIGN = ("acm/web-02/command", "acm/web-01/feedback", "acm/web-01/nose", "other/web-01/command")


def test_message_on_another_topic_is_acknowledged_and_warned_about_once() -> None:
    broker = FakeBroker()
    connection = broker.connect("web-01", [*FOREIGN, "acm/web-01/command"])
    client = AgentCommsClient(connection, "web-01", Topics(), TurnedClock().monotonic)
    for topic in (*FOREIGN, "acm/web-01/command"):
        broker.publish(topic, b"{}")
    with capture_logs() as logs:
        received = client.receive(0.0)
    assert [(it.agent, it.channel, it.payload) for it in received] == [("web-01", Channel.COMMAND, b"{}")]
    assert [(entry["event"], entry["topic"]) for entry in logs] == [("unknown_topic", FOREIGN[0])]
    assert list(connection._session.unacknowledged.values()) == [received[0].delivery]
    client.acknowledge(received)
    assert connection._session.unacknowledged == {}


def test_empty_message_is_acknowledged_and_is_no_fault() -> None:
    """It is how an operator removes a retained message."""
    broker = FakeBroker()
    connection = broker.connect("web-01", ["acm/web-01/command"])
    client = AgentCommsClient(connection, "web-01", Topics(), TurnedClock().monotonic)
    broker.publish("acm/web-01/command", b"")
    with capture_logs() as logs:
        assert client.receive(0.0) == []
    assert (logs, connection._session.unacknowledged) == ([], {})
