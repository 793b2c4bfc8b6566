"""The MQTT connection over TLS, against a Mosquitto that demands certificates."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.mqtt.address import MqttError, TlsFiles
from broker.mqtt.connection import MqttConnection
from tests.support.authority import TestAuthority, TlsBroker
from tests.support.errors import raises_code
from tests.support.waiting import wait_for

# paho leaves the socket of a failed handshake to the collector, which warns.
leaves_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def tls_broker(authority: TestAuthority, tmp_path: Path) -> Iterator[TlsBroker]:
    with TlsBroker(authority, tmp_path / "broker").running() as broker:
        yield broker


def identity(authority: TestAuthority, directory: Path, name: str = "web-01") -> TlsFiles:
    authority.write_identity(directory, name)
    return TlsFiles(directory / "ca.pem", directory / "certificate.pem", directory / "key.pem")


def test_client_certificate_of_the_authority_is_accepted(
    authority: TestAuthority, tls_broker: TlsBroker, tmp_path: Path
) -> None:
    tls = identity(authority, tmp_path / "agent")
    with (
        MqttConnection(tls_broker.url, "server") as server,
        MqttConnection(tls_broker.tls_url, "web-01", subscriptions=["t"], tls=tls) as agent,
    ):
        assert agent.wait_connected(10), agent.last_error
        assert server.wait_connected(10)
        server.publish("t", b"1")
        assert [delivery.payload for delivery in agent.drain(10)] == [b"1"]


@leaves_sockets
def test_client_certificate_of_another_authority_is_rejected(
    authority: TestAuthority, tls_broker: TlsBroker, tmp_path: Path
) -> None:
    stranger = identity(TestAuthority(), tmp_path / "agent")
    trusting = TlsFiles(tmp_path / "broker" / "ca.pem", stranger.certificate, stranger.key)
    with MqttConnection(tls_broker.tls_url, "web-01", tls=trusting) as agent:
        wait_for(lambda: agent.last_error, "the refusal")
        assert not agent.connected
    gc.collect()


@leaves_sockets
def test_broker_of_another_authority_is_not_trusted(
    authority: TestAuthority, tls_broker: TlsBroker, tmp_path: Path
) -> None:
    tls = identity(authority, tmp_path / "agent")
    TestAuthority().write_identity(tmp_path / "other", "x")
    with MqttConnection(
        tls_broker.tls_url, "web-01", tls=TlsFiles(tmp_path / "other/ca.pem", tls.certificate, tls.key)
    ) as agent:
        wait_for(lambda: agent.last_error, "the refusal")
        assert agent.last_error is not None
        assert "certificate" in agent.last_error
        assert not agent.connected
    gc.collect()


@leaves_sockets
def test_host_name_of_the_broker_is_verified(authority: TestAuthority, tls_broker: TlsBroker, tmp_path: Path) -> None:
    url = f"mqtts://localhost:{tls_broker.tls_port}"
    with MqttConnection(url, "web-01", tls=identity(authority, tmp_path / "agent")) as agent:
        wait_for(lambda: "ostname mismatch" in (agent.last_error or ""), "the refusal")
    gc.collect()


@leaves_sockets
def test_next_connection_uses_the_new_certificate(
    authority: TestAuthority, tls_broker: TlsBroker, tmp_path: Path
) -> None:
    stranger = identity(TestAuthority(), tmp_path / "stranger")
    trusting = TlsFiles(tmp_path / "broker" / "ca.pem", stranger.certificate, stranger.key)
    with MqttConnection(tls_broker.tls_url, "web-01", tls=trusting) as agent:
        wait_for(lambda: agent.last_error, "the refusal")
        agent.tls = identity(authority, tmp_path / "agent")
        wait_for(lambda: agent.connected, "the connection with the new certificate")
    gc.collect()


def test_stopped_connection_can_be_started_again(tls_broker: TlsBroker) -> None:
    with (
        MqttConnection(tls_broker.url, "server") as server,
        MqttConnection(tls_broker.url, "web-01", subscriptions=["t"]) as agent,
    ):
        for count in (1, 2):
            assert agent.wait_connected(10), agent.last_error
            assert server.wait_connected(10)
            assert agent.connections == count
            server.publish("t", b"1")
            received = wait_for(lambda: agent.drain(0.1), "the message")
            assert [delivery.payload for delivery in received] == [b"1"]
            agent.acknowledge(received)
            agent.stop()
            assert not agent.connected
            agent.start()


def test_unusable_tls_files_are_refused(tmp_path: Path) -> None:
    nothing = TlsFiles(tmp_path / "ca.pem", tmp_path / "certificate.pem", tmp_path / "key.pem")
    with raises_code(MqttError, "tls_files_unusable"):
        MqttConnection("mqtts://127.0.0.1", "web-01", tls=nothing)
