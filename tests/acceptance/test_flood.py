"""A real server on a real broker, with one agent that says far too much."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from broker.contract.codec import encode
from broker.mqtt.connection import MqttConnection
from tests.acceptance.conftest import Site
from tests.support.makers import result
from tests.support.waiting import wait_for


@contextmanager
def flood(site: Site) -> Iterator[MqttConnection]:
    """Publish invented results as an agent, as fast as the broker takes them, while the block runs."""
    frame = encode([result(f"invented-{number}") for number in range(20)])
    ended = threading.Event()

    def publish(connection: MqttConnection) -> None:
        while not ended.is_set():
            if not connection.publish("acm/flood/feedback", frame):
                ended.wait(0.01)

    with MqttConnection(site.broker_url, "flood") as connection:
        assert connection.wait_connected(10)
        thread = threading.Thread(target=publish, args=[connection])
        thread.start()
        try:
            yield connection
        finally:
            ended.set()
            thread.join()


def test_agent_is_served_while_another_floods_the_server(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    assert site.server is not None
    log = site.server.log
    with flood(site):
        wait_for(lambda: "agent_floods" in log.read_text(), "the server to log which agent floods it")
        for _ in range(2):
            assert site.result(site.send("web-01", "get-agent-configuration"))["outcome"] == "success"
    assert log.read_text().count("agent_floods") <= 2, "it is logged once a minute"
    assert '"agent":"flood"' in log.read_text()
