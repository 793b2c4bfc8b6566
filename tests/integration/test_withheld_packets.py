"""A proxy withholds one type of packet of one client: the connection is abandoned, and made again."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.mqtt.connection import MqttConnection
from tests.support.brokers import TestBroker
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.mqtt5_broker import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
)
from tests.support.mqtt_proxy import MqttProxy, Sender, mqtt_proxy
from tests.support.waiting import wait_for

TOPIC = "acm/web-01/command"
WINDOW = 1000  # how many messages the client takes before it acknowledges them: its Receive Maximum


@pytest.fixture
def proxy(broker: TestBroker) -> Iterator[MqttProxy]:
    with mqtt_proxy(broker.port) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def drained(connection: MqttConnection, condition: Callable[[], Any]) -> Callable[[], Any]:
    """Return a condition to wait for, which lets the connection work meanwhile."""

    def check() -> Any:
        connection.drain(0.02)
        return condition()

    return check


def acknowledging(
    connection: MqttConnection, condition: Callable[[], Any], payloads: list[bytes] | None = None
) -> Callable[[], Any]:
    """Return a condition to wait for; meanwhile what arrives is acknowledged, and added to `payloads`."""

    def check() -> Any:
        deliveries = connection.drain(0.02)
        connection.acknowledge(deliveries)
        if payloads is not None:
            payloads.extend(delivery.payload for delivery in deliveries)
        return condition()

    return check


def reasons(lines: list[Any], event: str) -> list[str]:
    return [line["reason"] for line in lines if line["event"] == event]


@pytest.mark.parametrize("withheld", [(Sender.BROKER, PUBACK), (Sender.CLIENT, PUBLISH)])
def test_message_without_an_answer_ends_the_connection(
    proxy: MqttProxy, clock: TurnedClock, logged: list[Any], withheld: tuple[Sender, int]
) -> None:
    with MqttConnection(proxy.url, "web-01", subscriptions=[TOPIC], monotonic=clock.monotonic) as agent:
        assert agent.wait_connected(10)
        proxy.withhold("web-01", *withheld)
        for _ in range(30):
            assert agent.publish("t", b"x")
        wait_for(lambda: proxy.count == 20, "the window to be full")
        clock.turn(59)
        agent.drain(0.05)
        assert (agent.connections, agent.backlog) == (1, 30)
        clock.turn(1)
        proxy.pass_all()
        wait_for(drained(agent, lambda: agent.connections == 2), "the second connection")
        agent.publish("t", b"x")
        wait_for(lambda: agent.readiness_problem() is None, "its PUBACK")
    assert reasons(logged, "mqtt_connection_lost") == ["the broker has not answered a message for 60 s"]


@pytest.mark.parametrize("withheld", [(Sender.BROKER, SUBACK), (Sender.CLIENT, SUBSCRIBE)])
def test_subscription_without_an_answer_ends_the_connection(
    proxy: MqttProxy, clock: TurnedClock, logged: list[Any], withheld: tuple[Sender, int]
) -> None:
    proxy.withhold("web-01", *withheld)
    with MqttConnection(proxy.url, "web-01", subscriptions=[TOPIC], monotonic=clock.monotonic) as agent:
        wait_for(lambda: proxy.count, "the SUBSCRIBE")
        clock.turn(60)
        proxy.pass_all()
        wait_for(drained(agent, lambda: agent.wait_connected(0)), "the second connection")
    assert reasons(logged, "mqtt_connection_lost") == ["the broker has not answered a subscription for 60 s"]


@pytest.mark.parametrize("withheld", [(Sender.BROKER, CONNACK), (Sender.CLIENT, CONNECT)])
def test_connect_without_an_answer_is_abandoned(
    proxy: MqttProxy, clock: TurnedClock, logged: list[Any], withheld: tuple[Sender, int]
) -> None:
    proxy.withhold("web-01", *withheld)
    with MqttConnection(proxy.url, "web-01", subscriptions=[TOPIC], monotonic=clock.monotonic) as agent:
        for count in (1, 2):
            wait_for(lambda wanted=count: proxy.count >= wanted, "a CONNECT")
            clock.turn(15)
            wait_for(drained(agent, lambda: agent.last_error), "the end of the attempt")
        proxy.pass_all()
        wait_for(drained(agent, lambda: agent.wait_connected(0)), "a connection")
    assert [reason.partition(":")[0] for reason in reasons(logged, "mqtt_connection_failed")] == ["it answers nothing"]


@pytest.mark.parametrize("withheld", [(Sender.BROKER, PINGRESP), (Sender.CLIENT, PINGREQ)])
def test_ping_without_an_answer_ends_the_connection_though_messages_arrive(
    proxy: MqttProxy, clock: TurnedClock, logged: list[Any], withheld: tuple[Sender, int]
) -> None:
    proxy.withhold("web-01", *withheld)
    with (
        MqttConnection(proxy.url, "web-01", subscriptions=[TOPIC], monotonic=clock.monotonic) as agent,
        MqttConnection(proxy.url, "server", monotonic=clock.monotonic) as server,
    ):
        assert agent.wait_connected(10)
        assert server.wait_connected(10)
        agent._client._client._keepalive = 1
        wait_for(lambda: proxy.count, "a ping")
        agent._client._client._keepalive = 30  # paho itself notices only a connection on which nothing arrives
        server.publish(TOPIC, b"x")
        assert agent.drain(10)
        clock.turn(60)
        proxy.pass_all()
        wait_for(drained(agent, lambda: agent.connections == 2), "the second connection")
    assert reasons(logged, "mqtt_connection_lost") == ["the broker has not answered a ping for 60 s"]


def test_stop_does_not_wait_for_a_broker_that_ignores_the_disconnect(proxy: MqttProxy) -> None:
    agent = MqttConnection(proxy.url, "web-01")
    agent.start()
    assert agent.wait_connected(10)
    proxy.withhold("web-01", Sender.CLIENT, DISCONNECT)
    stopping = threading.Thread(target=agent.stop)
    stopping.start()
    stopping.join(10)
    assert not stopping.is_alive()
    wait_for(lambda: proxy.count == 1, "the DISCONNECT at the proxy")


@pytest.mark.parametrize("withheld", [(Sender.BROKER, PUBLISH), (Sender.CLIENT, PUBACK)])
def test_connection_on_which_nothing_arrives_any_more_is_made_again(
    proxy: MqttProxy, clock: TurnedClock, logged: list[Any], withheld: tuple[Sender, int]
) -> None:
    with (
        MqttConnection(proxy.url, "web-01", subscriptions=[TOPIC], monotonic=clock.monotonic) as agent,
        MqttConnection(proxy.url, "server") as server,
    ):
        assert agent.wait_connected(10)
        assert server.wait_connected(10)
        proxy.withhold("web-01", *withheld)
        for number in range(WINDOW + 1):
            server.publish(TOPIC, b"%d" % number)
        wait_for(acknowledging(agent, lambda: proxy.count >= WINDOW), "the broker's window to be full")
        wait_for(lambda: server.backlog == 0, "the broker to have all messages")
        proxy.pass_all()
        assert agent.drain(0.3) == [], "the broker waits for PUBACKs that it will never get"
        clock.turn(599)
        agent.abandon_if_deaf()
        assert (agent.connections, agent.quiet_s) == (1, 599)
        clock.turn(1)
        agent.abandon_if_deaf()
        payloads: list[bytes] = []
        wait_for(acknowledging(agent, lambda: b"%d" % WINDOW in payloads, payloads), "the last message")
        assert (agent.connections, agent.quiet_s) == (2, 0)
    assert reasons(logged, "mqtt_connection_lost") == ["nothing has arrived for 600 s, although answers were due"]


def test_connection_is_kept_if_nothing_was_expected(proxy: MqttProxy, clock: TurnedClock) -> None:
    with MqttConnection(proxy.url, "server", subscriptions=[TOPIC], monotonic=clock.monotonic) as server:
        assert server.wait_connected(10)
        clock.turn(86400)
        server.abandon_if_deaf(lambda: False)
        server.publish(TOPIC, b"x")
        assert server.drain(10)
        assert server.connections == 1
