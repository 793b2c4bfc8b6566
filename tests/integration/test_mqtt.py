"""The MQTT connection against a real Mosquitto."""

import errno
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

import pytest
import structlog

from broker.mqtt.broker_limits import MAX_PACKET_BYTES
from broker.mqtt.connection import MqttConnection
from broker.mqtt.delivery import Delivery
from tests.support.brokers import TestBroker

Connect = Callable[..., MqttConnection]
TOPIC = "acm/web-01/command"
WAIT_S = 15.0


@pytest.fixture(params=[False, True], ids=["read by a thread", "read by drain"])
def connect(broker: TestBroker, request: pytest.FixtureRequest) -> Iterator[Connect]:
    with ExitStack() as open_connections:

        def make(client_id: str, *topics: str, **options: Any) -> MqttConnection:
            connection = MqttConnection(
                broker.url, client_id, subscriptions=topics, drain_reads=request.param, **options
            )
            open_connections.enter_context(connection)
            assert connection.wait_connected(WAIT_S), connection.last_error
            return connection

        yield make


def receive(connection: MqttConnection, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    while len(got) < count:
        batch = connection.drain(WAIT_S)
        assert batch, f"only {len(got)} of {count} messages came"
        got += batch
    return got


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the awaited condition did not come"
        threading.Event().wait(0.01)


def _wait_for_connection(connection: MqttConnection, count: int) -> None:
    _wait_until(lambda: connection.connections >= count)
    assert connection.wait_connected(WAIT_S)


class Relay:
    """Passes one TCP connection on to the broker until it is cut without a DISCONNECT."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._broker_port = port
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        self._server.close()
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        near, _ = self._server.accept()
        far = socket.create_connection(("127.0.0.1", self._broker_port))
        self._ends += [near, far]
        for source, sink in ((near, far), (far, near)):
            self._threads.append(threading.Thread(target=self._copy, args=(source, sink)))
            self._threads[-1].start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.payload) for delivery in deliveries]


def test_messages_arrive_in_order(connect: Connect) -> None:
    agent, server = connect("web-01", TOPIC), connect("server")
    assert all(server.publish(TOPIC, b"%d" % n) for n in range(3000))
    got: list[Delivery] = []
    while len(got) < 3000:
        batch = receive(agent, 1)
        agent.acknowledge(batch)
        got += batch
    assert numbers(got) == list(range(3000))
    assert {(d.topic, d.retained, d.duplicate, d.connection) for d in got} == {(TOPIC, False, False, 1)}


def test_drain_returns_at_most_its_limit(connect: Connect) -> None:
    agent, server = connect("web-01", TOPIC), connect("server")
    for n in range(5):
        server.publish(TOPIC, b"%d" % n)
    got = receive(agent, 1)
    while len(got) < 5:
        batch = agent.drain(WAIT_S, limit=2)
        assert 0 < len(batch) <= 2
        got += batch
    assert numbers(got) == [0, 1, 2, 3, 4]


def test_wake_ends_a_wait_early(connect: Connect) -> None:
    agent = connect("web-01", TOPIC)
    done = threading.Event()

    def wait() -> None:
        agent.drain(3600)
        done.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    agent.wake()
    assert done.wait(WAIT_S)
    waiting.join()


def test_only_unacknowledged_messages_are_redelivered(broker: TestBroker, connect: Connect) -> None:
    server = connect("server")
    with MqttConnection(broker.url, "web-01", subscriptions=[TOPIC]) as first:
        assert first.wait_connected(WAIT_S)
        for n in range(3):
            server.publish(TOPIC, b"%d" % n)
        first.acknowledge(receive(first, 3)[:1])
    again = receive(connect("web-01", TOPIC), 2)
    assert [(int(d.payload), d.duplicate) for d in again] == [(1, True), (2, True)]


def test_messages_are_kept_for_an_offline_client(broker: TestBroker, connect: Connect) -> None:
    with MqttConnection(broker.url, "web-01", subscriptions=[TOPIC]) as agent:
        assert agent.wait_connected(WAIT_S)
    connect("server").publish(TOPIC, b"7")
    assert numbers(receive(connect("web-01", TOPIC), 1)) == [7]


def test_ack_for_an_earlier_connection_is_dropped(broker: TestBroker, connect: Connect) -> None:
    agent, server = connect("web-01", TOPIC), connect("server")
    server.publish(TOPIC, b"1")
    old = receive(agent, 1)
    broker.lose_data()
    _wait_for_connection(agent, 2)
    _wait_for_connection(server, 2)
    server.publish(TOPIC, b"2")
    new = receive(agent, 1)
    assert new[0].mid == old[0].mid, "the broker gives the old id to the new message"
    agent.acknowledge(old)
    agent.stop()
    assert numbers(receive(connect("web-01", TOPIC), 1)) == [2]


def test_clients_reconnect_after_the_broker_was_killed(broker: TestBroker, connect: Connect) -> None:
    agent, server = connect("web-01", TOPIC), connect("server")
    broker.kill()
    _wait_until(lambda: not server.connected)
    assert server.publish(TOPIC, b"0") is False
    assert server.last_error
    broker.start()
    _wait_for_connection(agent, 2)
    _wait_for_connection(server, 2)
    assert server.last_error is None
    assert server.publish(TOPIC, b"1")
    assert numbers(receive(agent, 1)) == [1]


def test_any_payload_is_sent_unless_it_is_too_long(connect: Connect) -> None:
    agent, server = connect("web-01", TOPIC), connect("server")
    payloads = [b"\x00\xff\xfe{", b"", bytes(262144), b"last"]
    assert server.publish(TOPIC, bytes(MAX_PACKET_BYTES)) is False
    assert [server.publish(TOPIC, payload) for payload in payloads] == [True] * 4
    assert [d.payload for d in receive(agent, 4)] == payloads
    assert server.connections == 1


def test_last_will_is_published_when_a_client_vanishes(broker: TestBroker, connect: Connect) -> None:
    server = connect("server", "acm/+/status")
    relay = Relay(broker.port)
    with MqttConnection(relay.url, "web-01", will=("acm/web-01/status", lambda: b"offline")) as agent:
        assert agent.wait_connected(WAIT_S)
        relay.cut()
        assert [d.payload for d in receive(server, 1)] == [b"offline"]
    assert [(d.payload, d.retained) for d in receive(connect("late", "acm/+/status"), 1)] == [(b"offline", True)]


def test_stop_sends_published_messages_and_no_last_will(broker: TestBroker, connect: Connect) -> None:
    server = connect("server", "acm/+/status")
    with MqttConnection(broker.url, "web-01", will=("acm/web-01/status", lambda: b"died")) as agent:
        assert agent.wait_connected(WAIT_S)
        agent.publish("acm/web-01/status", b"stopped", retain=True)
    connect("other").publish("acm/web-02/status", b"end")
    assert [d.payload for d in receive(server, 2)] == [b"stopped", b"end"]


def test_stop_can_request_the_last_will(broker: TestBroker, connect: Connect) -> None:
    server = connect("server", "acm/+/status")
    agent = connect("web-01", will=("acm/web-01/status", lambda: b"away"))
    agent.stop(last_will=True)
    assert [d.payload for d in receive(server, 1)] == [b"away"]


def test_on_connect_runs_on_each_connect(broker: TestBroker, connect: Connect) -> None:
    agents: list[MqttConnection] = []

    def publish_status() -> None:
        agents[0].publish("acm/web-01/status", b"%d" % agents[0].connections, retain=True)

    agents.append(MqttConnection(broker.url, "web-01", on_connect=publish_status))
    server = connect("server", "acm/+/status")
    with agents[0]:
        assert numbers(receive(server, 1)) == [1]
        broker.lose_data()
        assert numbers(receive(server, 1)) == [2]


def test_log_line_that_fails_does_not_make_a_connection_deaf(broker: TestBroker, connect: Connect) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = structlog.get_config()
    structlog.configure(processors=[fail])
    try:
        agent = connect("web-01", TOPIC)
        broker.restart()
        _wait_for_connection(agent, 2)
        connect("server").publish(TOPIC, b"1")
        assert numbers(receive(agent, 1)) == [1]
    finally:
        structlog.configure(**before)


def test_failing_on_connect_does_not_end_the_connection(connect: Connect) -> None:
    def fail() -> None:
        raise ValueError("the hook failed")

    agent = connect("web-01", TOPIC, on_connect=fail)
    assert agent.last_error == "ValueError: the hook failed"
    connect("server").publish(TOPIC, b"1")
    assert numbers(receive(agent, 1)) == [1]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_dead_network_thread_is_restarted(broker: TestBroker) -> None:
    def die_once() -> None:
        if agent.connections == 1:
            raise SystemExit

    agent = MqttConnection(broker.url, "web-01", subscriptions=[TOPIC], on_connect=die_once)
    with agent:

        def connected_again() -> bool:
            agent.drain(0.01)  # the thread dies at any time after its first connection
            return agent.connections == 2

        _wait_until(connected_again)
        assert agent.wait_connected(WAIT_S)
    gc.collect()  # paho leaves the dead thread's sockets to the collector, which warns


def test_stop_is_bounded_when_the_broker_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = MqttConnection(f"mqtt://127.0.0.1:{mute.getsockname()[1]}", "web-01")
        silent.start()
        peer, _ = mute.accept()
        with peer:
            done = threading.Event()
            stopping = threading.Thread(target=lambda: (silent.stop(timeout_s=0.2), done.set()))
            stopping.start()
            assert done.wait(5)
            stopping.join()


def test_connection_is_ready_only_after_its_own_puback(broker: TestBroker, connect: Connect) -> None:
    connection = connect("web-01", TOPIC)
    assert connection.readiness_problem() == "the broker has acknowledged nothing that was published"
    connection.publish("acm/web-01/status", b"x")
    _wait_until(lambda: connection.readiness_problem() is None)
    broker.kill()
    _wait_until(lambda: not connection.connected)
    assert str(connection.readiness_problem()).startswith("there is no connection to the broker (")
    broker.start()
    _wait_for_connection(connection, 2)
    assert connection.readiness_problem() == "the broker has acknowledged nothing that was published"


def test_unreachable_broker_is_named_in_last_error() -> None:
    with MqttConnection("mqtt://127.0.0.1:1", "web-01") as nobody:
        assert nobody.wait_connected(0.3) is False
        _wait_until(lambda: nobody.last_error is not None)
        assert nobody.last_error == (
            "No connection to 127.0.0.1:1: connection refused: no broker listens there, or a firewall refuses it."
        )


def test_wait_in_drain_ends_at_a_wake(connect: Connect) -> None:
    agent = connect("web-01", TOPIC)
    assert agent.drain(0) == []
    for _ in range(20):
        threading.Timer(0.005, agent.wake).start()
        assert agent.drain(60) == []


def test_connection_lives_while_its_drainer_is_away(connect: Connect) -> None:
    agent, server = connect("web-01", TOPIC), connect("server")
    server.publish(TOPIC, b"1")
    agent.acknowledge(receive(agent, 1))
    for _ in range(100):
        assert agent.publish("t", b"x")  # more than may be unanswered
    _wait_until(lambda: agent.backlog == 0)
    server.publish(TOPIC, b"2")
    assert numbers(receive(agent, 1)) == [2]


def test_connection_that_the_broker_ends_is_made_again_without_spinning(broker: TestBroker, connect: Connect) -> None:
    agent = connect("web-01", TOPIC)
    agent.drain(0.05)
    broker.restart()
    work, calls = agent._client.work, list[float]()
    agent._client.work = lambda *arguments: calls.append(0.0) or work(*arguments)  # type: ignore[method-assign,func-returns-value]
    _wait_until(lambda: bool(agent.drain(0.2)) or agent.connections == 2)
    assert agent.wait_connected(WAIT_S)
    assert len(calls) < 500, "it waits, and does not ask all the time"
    connect("server").publish(TOPIC, b"1")
    assert numbers(receive(agent, 1)) == [1]
