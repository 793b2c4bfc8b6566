"""A connection that cannot be made is logged in plain words, with its address, and once when it is back."""

import gc
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.mosquitto.process import SecuredMosquitto
from broker.mqtt import unanswered
from broker.mqtt.address import TlsFiles
from broker.mqtt.connection import MqttConnection
from broker.pki.authority import CertificateAuthority
from tests.support.authority import TestAuthority, TlsBroker
from tests.support.brokers import free_port, tuned_mosquitto
from tests.support.fakes.mqtt5_broker import connack, scripted_broker
from tests.support.secured import SecuredSite
from tests.support.waiting import wait_for

# paho leaves the socket of a failed handshake to the collector, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines
    gc.collect()


def failure(lines: list[Any], url: str, **options: Any) -> dict[str, Any]:
    """Return the first line that a connection to this URL logs about its failure."""
    with MqttConnection(url, "web-01", **options) as connection:

        def found() -> Any:
            connection.drain(0.05)
            return [line for line in lines if line["event"] == "mqtt_connection_failed"]

        line: dict[str, Any] = wait_for(found, "the failure to be logged")[0]
        assert line["reason"] in (connection.last_error or "")
    return line


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections, hand each to `answer`, and close it; yield the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                with near, suppress(OSError):
                    answer(near)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def until_closed(near: socket.socket) -> None:
    """Answer nothing until the client gives up."""
    while near.recv(1000):
        pass


def after_connect(answer: bytes) -> Callable[[socket.socket], None]:
    """Answer the first packet so, and close."""

    def serve(near: socket.socket) -> None:
        near.recv(1000)
        near.sendall(answer)

    return serve


def files_of(directory: Path) -> TlsFiles:
    return TlsFiles(directory / "ca.pem", directory / "certificate.pem", directory / "key.pem")


def test_outage_is_logged_at_its_beginning_and_at_its_end(logged: list[Any], tmp_path: Path) -> None:
    with scripted_broker() as broker:
        port = broker.port
    with MqttConnection(f"mqtt://127.0.0.1:{port}", "web-01") as connection:
        wait_for(lambda: connection._policy._attempts >= 2, "two attempts")
        with tuned_mosquitto(tmp_path, port=port):
            assert connection.wait_connected(20)
    failed, back = (line for line in logged if line["event"] in ("mqtt_connection_failed", "mqtt_connected"))
    assert (failed["address"], failed["attempts"]) == (f"127.0.0.1:{port}", 1)
    assert failed["reason"].startswith("connection refused")
    assert back["failed_attempts"] >= 2


def test_name_that_does_not_resolve_is_named(logged: list[Any]) -> None:
    line = failure(logged, "mqtt://broker.invalid:1883")
    assert line["address"] == "broker.invalid:1883"
    assert line["reason"].startswith("the host name cannot be resolved")


def test_port_that_answers_nothing_is_given_up(logged: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "_LONGEST_CONNECT_S", 0.1)
    with listener(until_closed) as port:
        assert "it answers nothing" in failure(logged, f"mqtt://127.0.0.1:{port}")["reason"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n" + 200 * b"x",
        b"SSH-2.0-OpenSSH_9.2\r\n" * 9,
        b"\xff" * 9,
    ],
)
def test_other_protocol_is_recognized(logged: list[Any], answer: bytes) -> None:
    with listener(after_connect(answer)) as port:
        assert "the answer is not MQTT 5" in failure(logged, f"mqtt://127.0.0.1:{port}")["reason"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (bytes((0x20, 2, 0, 1)), "it speaks an older MQTT"),
        (bytes((0x20, 2, 0, 2)), "the client id was refused (code 2 of MQTT 3.1.1)"),
        (bytes((0x20, 2, 0, 3)), "the broker is unavailable (code 3 of MQTT 3.1.1)"),
        (bytes((0x20, 2, 0, 4)), "bad user name or password (code 4 of MQTT 3.1.1)"),
        (bytes((0x20, 2, 0, 5)), "not authorized (code 5 of MQTT 3.1.1)"),
        (b"", "closed without an answer"),
        (connack(reason=0x87), "the broker refused this client: not authorized"),
        (connack(bytes((31, 0, 5)) + b"later", 0x89), "server busy (later)"),
        (connack(bytes((28, 0, 5)) + b"other", 0x9D), "server moved (other)"),
        (connack(reason=0x80), "reason code 0x80"),
    ],
)
def test_refusal_is_told(logged: list[Any], answer: bytes, reason: str) -> None:
    with listener(after_connect(answer)) as port:
        assert reason in failure(logged, f"mqtt://127.0.0.1:{port}")["reason"]


def test_plain_connection_to_a_tls_port_is_explained(logged: list[Any], tmp_path: Path) -> None:
    with TlsBroker(TestAuthority(), tmp_path).running() as broker:
        reason = failure(logged, f"mqtt://127.0.0.1:{broker.tls_port}")["reason"]
    assert "is it the port for mqtts:// URLs" in reason


def test_tls_to_a_plain_port_is_explained(logged: list[Any], tmp_path: Path) -> None:
    TestAuthority().write_identity(tmp_path, "web-01")
    handler = http.server.BaseHTTPRequestHandler
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as web:
        handler.log_message = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=web.serve_forever, args=(0.05,))
        thread.start()
        try:
            reason = failure(logged, f"mqtts://127.0.0.1:{web.server_port}", tls=files_of(tmp_path))["reason"]
        finally:
            web.shutdown()
            thread.join()
    assert "is it the port for" in reason


@pytest.mark.parametrize(
    ("options", "own_authority", "reason"),
    [
        ({"host": "127.0.0.1", "begins_s": 600}, True, "not yet valid"),
        ({"host": "127.0.0.1", "life_s": -60}, True, "has ended"),
        ({"host": "127.0.0.2"}, True, "for another address"),
        ({"host": "broker.example"}, True, "for another address"),
        ({"host": "127.0.0.1"}, False, "authority that is not trusted"),
    ],
)
def test_certificate_of_the_broker_that_is_refused_is_explained(
    logged: list[Any], tmp_path: Path, options: dict[str, Any], own_authority: bool, reason: str
) -> None:
    authority = TestAuthority()
    (authority if own_authority else TestAuthority()).write_identity(tmp_path / "broker", "broker", **options)
    authority.write_identity(tmp_path / "agent", "web-01")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "broker/certificate.pem", tmp_path / "broker/key.pem")
    with listener(lambda near: context.wrap_socket(near, server_side=True).close()) as port:
        found = failure(logged, f"mqtts://127.0.0.1:{port}", tls=files_of(tmp_path / "agent"))
    assert reason in found["reason"]
    assert "_ssl.c" not in found["reason"]


def revoke(site: SecuredSite) -> TlsFiles:
    files = site.identity("web-01")
    site.revoke(files)
    return files


def end_revocation_list(site: SecuredSite) -> TlsFiles:
    past = CertificateAuthority(site.directory.parent / "ca", now=lambda: datetime.now(UTC) - timedelta(days=400))
    past.write_revocation_list(lambda: [], site.files.revocation_list)
    return site.identity("web-01")


def use_another_authority(site: SecuredSite) -> TlsFiles:
    TestAuthority().write_identity(site.directory.parent / "other", "web-01")
    foreign = files_of(site.directory.parent / "other")
    return TlsFiles(site.server.ca, foreign.certificate, foreign.key)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (revoke, "it is revoked"),
        (end_revocation_list, "revocation list, has ended"),
        (use_another_authority, "does not trust the authority"),
    ],
)
def test_client_certificate_that_the_broker_refuses_is_explained(
    logged: list[Any], tmp_path: Path, prepare: Callable[[SecuredSite], TlsFiles], reason: str
) -> None:
    site = SecuredSite(tmp_path)
    files = prepare(site)
    with SecuredMosquitto(site.directory):
        assert reason in failure(logged, site.url, tls=files)["reason"]


def test_missing_interface_of_an_ipv6_address_is_told(logged: list[Any]) -> None:
    line = failure(logged, f"mqtt://[fe80::1%25nodev]:{free_port()}")
    assert line["address"].startswith("[fe80::1%nodev]:")
