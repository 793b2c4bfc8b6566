"""The MQTT connection over TLS, against a Mosquitto that demands certificates."""

import gc
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from broker.mqtt.address import MqttError, TlsFiles
from broker.mqtt.connection import MqttConnection
from broker.mqtt.tls import client_context
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


def test_final_dot_of_the_brokers_host_is_not_compared_with_its_certificate(
    authority: TestAuthority, tmp_path: Path
) -> None:
    tls = identity(authority, tmp_path / "agent")
    with (
        TlsBroker(authority, tmp_path / "broker", "localhost").running() as broker,
        MqttConnection(f"mqtts://localhost.:{broker.tls_port}", "web-01", tls=tls) as agent,
    ):
        assert agent.wait_connected(10), agent.last_error


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


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("ca.pem", None, "cannot be read: No such file or directory"),
        ("certificate.pem", None, "cannot be read: No such file or directory"),
        ("key.pem", None, "cannot be read: No such file or directory"),
        ("ca.pem", b"", "has no certificate in PEM"),
        ("ca.pem", b"\x30\x82\x01\x00", "has no certificate in PEM"),
        ("certificate.pem", b"nothing", "has no certificate in PEM"),
        ("key.pem", b"nothing", "has no private key in PEM"),
    ],
)
def test_tls_file_that_cannot_be_used_is_named(
    authority: TestAuthority, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    files = identity(authority, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with raises_code(MqttError, "tls_files_unusable") as refused:
        MqttConnection("mqtts://127.0.0.1", "web-01", tls=files)
    assert str(tmp_path / name) in str(refused.value)
    assert says in str(refused.value)


def test_key_of_another_certificate_and_a_key_with_a_password_are_named(
    authority: TestAuthority, tmp_path: Path
) -> None:
    files, other = identity(authority, tmp_path / "one"), identity(authority, tmp_path / "other")
    locked = tmp_path / "locked.pem"
    protection = BestAvailableEncryption(b"secret")
    locked.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    for key, says in ((other.key, "does not belong to"), (locked, "needs a password")):
        with raises_code(MqttError, "tls_files_unusable") as refused:
            MqttConnection("mqtts://127.0.0.1", "web-01", tls=replace(files, key=key))
        assert str(key) in str(refused.value)
        assert says in str(refused.value)


def test_one_rule_verifies_certificates_with_and_without_files_on_all_pythons(
    authority: TestAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = identity(authority, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    for context in (client_context(None), client_context(files)):
        assert not context.verify_flags & (ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert len(context.get_ca_certs()) == 1


def test_missing_file_of_system_authorities_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nothing.pem"))
    with raises_code(MqttError, "tls_files_unusable") as refused:
        MqttConnection("mqtts://127.0.0.1", "web-01")
    assert str(tmp_path / "nothing.pem") in str(refused.value)


@leaves_sockets
def test_authority_that_was_taken_out_of_the_file_is_not_trusted_any_more(
    authority: TestAuthority, tls_broker: TlsBroker, tmp_path: Path
) -> None:
    files = identity(authority, tmp_path / "agent")
    with MqttConnection(tls_broker.tls_url, "web-01", tls=files) as agent:
        assert agent.wait_connected(10), agent.last_error
        files.ca.write_text(TestAuthority().pem)
        agent.stop()
        agent.start()
        wait_for(lambda: "authority that is not trusted" in (agent.last_error or ""), "the refusal")
        files.ca.unlink()
        wait_for(lambda: f"{files.ca} cannot be read" in (agent.last_error or ""), "the missing file")
    gc.collect()
