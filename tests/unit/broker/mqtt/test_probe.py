"""A short connection returns each answer of the broker as it was sent."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.mqtt.address import parse_url
from broker.mqtt.probe import ClosedByBroker, Probe, connected_socket
from tests.support.fakes.mqtt5_broker import ScriptedBroker, connack, scripted_broker


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with scripted_broker() as running:
        yield running


@contextmanager
def probe_at(url: str, timeout_s: float = 20.0) -> Iterator[Probe]:
    with connected_socket(parse_url(url), None, timeout_s) as plain:
        yield Probe(plain)


def test_reason_codes_are_those_of_the_broker(broker: ScriptedBroker) -> None:
    broker.puback, broker.suback = 0x87, 0x80
    with probe_at(broker.url) as probe:
        assert probe.connect("_doctor") == 0
        assert probe.publish("acm/a/status") == 0x87
        assert probe.subscribe(["acm/#", "$SYS/#"]) == [0x80, 0x80]
        probe.disconnect()
    assert broker.of(3)[0].topic == "acm/a/status"


def test_client_that_is_refused(broker: ScriptedBroker) -> None:
    broker.connack = connack(reason=0x87)
    with probe_at(broker.url) as probe:
        assert probe.connect("_doctor") == 0x87


def test_broker_that_ends_the_connection(broker: ScriptedBroker) -> None:
    broker.goodbye = 0x8B
    with probe_at(broker.url) as probe:
        assert probe.connect("_doctor") == 0
        with pytest.raises(ClosedByBroker, match="0x8B"):
            probe.publish("acm/a/status")


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Run something that answers the first packet with these bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x01\x00",
        b"\x20\xff\xff\xff\xff\xff",
        b"\x20\xff\xff\xff\x7f",
        b"\x90\x03\x00\x01\x00",
    ],
)
def test_answer_that_is_not_mqtt_5(answer: bytes) -> None:
    with answering(answer) as url, probe_at(url) as probe, pytest.raises(ClosedByBroker):
        probe.connect("_doctor")


def test_message_of_others_is_noted(broker: ScriptedBroker) -> None:
    with probe_at(broker.url) as probe:
        probe.connect("_doctor")
        assert broker.client is not None
        broker.client.sendall(b"\x31\x0d\x00\x0aacm/b/stat\x00")
        probe.subscribe(["acm/#"])
        assert probe.received == ["acm/b/stat"]


def test_broker_that_does_not_answer(broker: ScriptedBroker) -> None:
    broker.acknowledges = False
    with probe_at(broker.url, 0.2) as probe:
        probe.connect("_doctor")
        with pytest.raises(TimeoutError):
            probe.publish("acm/a/status")
