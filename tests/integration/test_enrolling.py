"""The agent's side of enrolment in one process, with a real HTTPS server and real brokers."""

import gc
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.codec import decode_feedbacks, encode
from broker.contract.dsse import SigningKey
from broker.contract.enrolment import AuthorityResponse, EnrollResponse
from broker.contract.messages import Ack
from broker.mqtt.connection import MqttConnection
from broker.system.retry import growing_waits
from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.enroll import enroll_by_hand, obtain, parse_token
from consumer.enrolment.relocation import Relocation
from consumer.enrolment.renewal import Renewal
from consumer.enrolment.store import Enrolment, EnrolmentDirectory
from consumer.errors import EnrolmentError
from consumer.observer import LogObserver
from consumer.system.clock import SystemClock
from tests.support.authority import TestAuthority, TlsBroker
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.fakes.enrolment_server import EnrolmentServer
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.mqtt5_broker import CONNACK, DISCONNECT, PUBACK, PUBLISH, SUBACK, SUBSCRIBE
from tests.support.mqtt_proxy import Sender, mqtt_proxy
from tests.support.waiting import wait_for

CLOCK = SystemClock()
NEVER = threading.Event()
# paho leaves the socket of a failed handshake to the collector, which warns.
leaves_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def server(authority: TestAuthority, tmp_path: Path) -> Iterator[EnrolmentServer]:
    with EnrolmentServer(authority, "mqtts://127.0.0.1:1").running(tmp_path / "server") as server:
        yield server


@pytest.fixture
def tls_broker(authority: TestAuthority, tmp_path: Path) -> Iterator[TlsBroker]:
    with TlsBroker(authority, tmp_path / "broker").running() as broker:
        yield broker


@pytest.fixture
def enrolments(tmp_path: Path) -> EnrolmentDirectory:
    (tmp_path / "state").mkdir()
    return EnrolmentDirectory(tmp_path / "state")


def soon(seconds: float = 10.0) -> float:
    return CLOCK.monotonic() + seconds


def enroll(enrolments: EnrolmentDirectory, server: EnrolmentServer, token: str, url: str | None = None) -> Enrolment:
    client = EnrolmentClient(url or server.url, CLOCK, soon(), NEVER)
    return obtain(enrolments, client, parse_token(token), "web-01", on_key=lambda: None)


@contextmanager
def acking_server(url: str, digest: str | None = None) -> Iterator[list[str | None]]:
    """Acknowledge every result with its digest, or with `digest`; yield the ids of their commands."""
    seen: list[str | None] = []
    ended = threading.Event()
    with MqttConnection(url, "server", subscriptions=["acm/+/feedback"]) as connection:
        assert connection.wait_connected(10)

        def acknowledge() -> None:
            while not ended.is_set():
                for delivery in connection.drain(0.1):
                    for result in decode_feedbacks(delivery.payload):
                        seen.append(result.command_id)
                        ack = Ack(result.command_id or "", digest or result.digest or "")
                        connection.publish("acm/web-01/ack", encode([ack]))

        thread = threading.Thread(target=acknowledge)
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()


def test_same_token_gives_the_same_enrolment_after_a_lost_response(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tmp_path: Path
) -> None:
    token = server.new_token()
    server.change = lambda answer: b"lost" if isinstance(answer, EnrollResponse) else answer
    with raises_code(EnrolmentError, "unexpected_response"):
        enroll(enrolments, server, token)
    (key,) = (tmp_path / "state" / "enrolment" / "keys").iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    server.change = lambda answer: answer
    first = enroll(enrolments, server, token)
    asked = len(server.asked)
    assert enroll(enrolments, server, token) == first
    assert len(server.asked) == asked
    assert first.tls.key.read_bytes() == key.read_bytes()
    with raises_code(EnrolmentError, "refused"):
        enroll(EnrolmentDirectory(tmp_path), server, token)


def of(kind: type, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda answer: change(answer) if isinstance(answer, kind) else answer


OTHER = TestAuthority("Other CA")
OTHER_KEY = OTHER.issue("web-01", Ed25519PrivateKey.generate().public_key())


def all_of_another_authority(answer: EnrollResponse) -> EnrollResponse:
    key = x509.load_pem_x509_certificate(answer.certificate.encode()).public_key()
    return replace(answer, ca=OTHER.pem, certificate=OTHER.issue("web-01", key))


BAD_ANSWERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another authority": (
        of(AuthorityResponse, lambda answer: AuthorityResponse(OTHER.pem)),
        "wrong_authority",
    ),
    "another authority later": (of(EnrollResponse, lambda answer: replace(answer, ca=OTHER.pem)), "wrong_authority"),
    "another authority in all": (of(EnrollResponse, all_of_another_authority), "wrong_authority"),
    "no certificate": (of(AuthorityResponse, lambda answer: AuthorityResponse("-")), "not_a_certificate"),
    "another agent": (of(EnrollResponse, lambda answer: replace(answer, agent="web-02")), "wrong_subject"),
    "another key": (
        of(EnrollResponse, lambda answer: replace(answer, certificate=OTHER_KEY)),
        "wrong_subject",
    ),
    "a bad broker": (of(EnrollResponse, lambda answer: replace(answer, broker="http://x")), "invalid_broker"),
    "a bad key": (of(EnrollResponse, lambda answer: replace(answer, signing_keys=("x",))), "invalid_signing_keys"),
    "a bad prefix": (of(EnrollResponse, lambda answer: replace(answer, topic_prefix="#")), "invalid_broker"),
    "too long": (lambda answer: b" " * 100_000, "response_too_large"),
    "no JSON": (lambda answer: b"<html>", "unexpected_response"),
    "the wrong JSON": (lambda answer: b"{}", "unexpected_response"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_invalid_response_is_refused_and_leaves_no_enrolment(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tmp_path: Path, name: str
) -> None:
    server.change, code = BAD_ANSWERS[name]
    with raises_code(EnrolmentError, code) as caught:
        enroll(enrolments, server, server.new_token())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "state" / "enrolment" / "enrolments").exists()


def test_expired_certificate_is_refused(enrolments: EnrolmentDirectory, server: EnrolmentServer) -> None:
    server.life_s = -60.0
    with raises_code(EnrolmentError, "certificate_expired"):
        enroll(enrolments, server, server.new_token())


def test_wrong_url_or_token_is_refused_without_showing_the_token(
    enrolments: EnrolmentDirectory, server: EnrolmentServer
) -> None:
    token = server.new_token()
    for url, given, code in (
        (f"https://127.0.0.1:{free_port()}", token, "unreachable"),
        (server.url.replace("127.0.0.1", "localhost"), token, "unreachable"),
        ("http://127.0.0.1", token, "invalid_url"),
        ("https://127.0.0.1:x", token, "invalid_url"),
        ("https://127.0.0.1,127.0.0.2", token, "invalid_url"),
        ("https://127.0.0.1..", token, "invalid_url"),
        ("wss://127.0.0.1", token, "invalid_url"),
        ("https://:hush@127.0.0.1", token, "invalid_url"),
        ("https://127.0.0.1?password=hush", token, "invalid_url"),
        ("https://me:1#hush@127.0.0.1", token, "invalid_url"),
        (server.url, token[:-1], "invalid_token"),
        (server.url, f"acm1.{'x' * 22}.{server.authority.fingerprint}", "refused"),
    ):
        with raises_code(EnrolmentError, code) as caught:
            enroll(enrolments, server, given, url)
        assert token not in str(caught.value)
        assert "hush" not in str(caught.value)


class OwnConnection:
    """The agent's own connection; records how the trial stops and starts it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self, *, last_will: bool = False) -> None:
        self.calls.append("stop with will" if last_will else "stop")


def relocation_of(enrolments: EnrolmentDirectory, own: OwnConnection, *, accept_unsigned: bool = True) -> Relocation:
    return Relocation(
        enrolments,
        MemoryCommandStore(),
        own,
        CLOCK,
        LogObserver(),
        incarnation="i1",
        address=("mqtt://old", "acm"),
        accept_unsigned=accept_unsigned,
    )


def test_ack_of_its_result_passes_the_trial(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tls_broker: TlsBroker
) -> None:
    server.broker = tls_broker.tls_url
    enrolment, own = enroll(enrolments, server, server.new_token()), OwnConnection()
    with acking_server(tls_broker.url) as seen:
        relocation_of(enrolments, own).try_out(enrolment, soon(), NEVER)
    assert seen[0] == f"enrolment-{enrolment.directory.name}"
    assert own.calls == ["stop with will", "start"]


def test_unsigned_ack_does_not_pass_the_trial(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tls_broker: TlsBroker
) -> None:
    server.broker = tls_broker.tls_url
    server.signing_keys = (SigningKey(Ed25519PrivateKey.generate()).public.pem,)
    enrolment = enroll(enrolments, server, server.new_token())
    relocation = relocation_of(enrolments, OwnConnection(), accept_unsigned=False)
    with acking_server(tls_broker.url), raises_code(EnrolmentError, "unacknowledged"):
        relocation.try_out(enrolment, soon(2), NEVER)


@leaves_sockets
@pytest.mark.parametrize(
    ("wrong", "code", "named"),
    [
        ("port", "connection_failed", "connection refused"),
        ("authority", "connection_failed", "certificate"),
        ("server", "unacknowledged", ""),
    ],
)
def test_failed_trial_names_its_cause_and_the_agent_reconnects(
    enrolments: EnrolmentDirectory,
    server: EnrolmentServer,
    tls_broker: TlsBroker,
    tmp_path: Path,
    wrong: str,
    code: str,
    named: str,
) -> None:
    with TlsBroker(OTHER, tmp_path / "other").running() as other:
        ports = {"port": free_port(), "authority": other.tls_port, "server": tls_broker.tls_port}
        server.broker = f"mqtts://127.0.0.1:{ports[wrong]}"
        enrolment, own = enroll(enrolments, server, server.new_token()), OwnConnection()
        with raises_code(EnrolmentError, code) as caught:
            relocation_of(enrolments, own).try_out(enrolment, soon(1.5), NEVER)
        assert named in str(caught.value)
        assert own.calls == ["stop with will", "start"]
    gc.collect()


@pytest.mark.parametrize(
    ("sender", "kind", "code"),
    [
        (Sender.BROKER, CONNACK, "timed_out"),
        (Sender.BROKER, SUBACK, "timed_out"),
        (Sender.BROKER, PUBLISH, "unacknowledged"),
        (Sender.CLIENT, PUBLISH, "unacknowledged"),
        (Sender.CLIENT, SUBSCRIBE, "timed_out"),
    ],
)
def test_trial_over_a_broker_that_withholds_packets_ends_in_time_and_the_agent_reconnects(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tls_broker: TlsBroker, sender: Sender, kind: int, code: str
) -> None:
    with mqtt_proxy(tls_broker.port) as proxy, acking_server(tls_broker.url):
        server.broker = proxy.url
        enrolment, own = enroll(enrolments, server, server.new_token()), OwnConnection()
        proxy.withhold("web-01", sender, kind)
        with raises_code(EnrolmentError, code):
            relocation_of(enrolments, own).try_out(enrolment, soon(1.5), NEVER)
        assert proxy.count
        assert own.calls == ["stop with will", "start"]
        proxy.pass_all()
        relocation_of(enrolments, own).try_out(enrolment, soon(), NEVER)


@pytest.mark.parametrize(
    ("sender", "kind"), [(Sender.BROKER, PUBACK), (Sender.CLIENT, PUBACK), (Sender.CLIENT, DISCONNECT)]
)
def test_trial_needs_no_puback_and_no_disconnect(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tls_broker: TlsBroker, sender: Sender, kind: int
) -> None:
    with mqtt_proxy(tls_broker.port) as proxy, acking_server(tls_broker.url):
        server.broker = proxy.url
        proxy.withhold("web-01", sender, kind)
        enrolment, own = enroll(enrolments, server, server.new_token()), OwnConnection()
        relocation_of(enrolments, own).try_out(enrolment, soon(), NEVER)
        wait_for(lambda: proxy.count, "the packet at the proxy")


def test_ack_of_another_result_does_not_pass_the_trial(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tls_broker: TlsBroker
) -> None:
    server.broker = tls_broker.tls_url
    enrolment = enroll(enrolments, server, server.new_token())
    with (
        acking_server(tls_broker.url, digest="0" * 64),
        raises_code(EnrolmentError, "unacknowledged"),
    ):
        relocation_of(enrolments, OwnConnection()).try_out(enrolment, soon(1.5), NEVER)


def test_trial_that_outlives_the_agent_does_not_reconnect(
    enrolments: EnrolmentDirectory, server: EnrolmentServer
) -> None:
    own = OwnConnection()
    relocation = relocation_of(enrolments, own)
    relocation.close()
    with pytest.raises(EnrolmentError):
        relocation.try_out(enroll(enrolments, server, server.new_token()), soon(0), NEVER)
    assert own.calls == ["stop with will"]


def test_trial_can_be_cancelled(enrolments: EnrolmentDirectory, server: EnrolmentServer) -> None:
    cancelled = threading.Event()
    cancelled.set()
    enrolment = enroll(enrolments, server, server.new_token())
    with raises_code(EnrolmentError, "cancelled"):
        relocation_of(enrolments, OwnConnection()).try_out(enrolment, soon(), cancelled)


def test_manual_enrolment_replaces_another_only_if_it_works(
    enrolments: EnrolmentDirectory, server: EnrolmentServer, tls_broker: TlsBroker, tmp_path: Path
) -> None:
    def by_hand() -> Enrolment:
        token = parse_token(server.new_token())
        return enroll_by_hand(tmp_path / "state", server.url, token, "web-01", CLOCK, soon(3))

    first = by_hand()
    with raises_code(EnrolmentError, "connection_failed"):
        by_hand()
    assert enrolments.current() == first
    assert list(first.directory.parent.iterdir()) == [first.directory]
    server.broker = tls_broker.tls_url
    with acking_server(tls_broker.url):
        second = by_hand()
    assert enrolments.current() == second
    assert list(first.directory.parent.iterdir()) == [second.directory]


class LaterClock(SystemClock):
    """The machine's clocks, `later` seconds ahead."""

    later = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.later)

    def monotonic(self) -> float:
        return super().monotonic() + self.later


def test_certificate_is_renewed_after_two_thirds_and_a_failure_is_retried(
    enrolments: EnrolmentDirectory, server: EnrolmentServer
) -> None:
    before = enroll(enrolments, server, server.new_token())
    enrolments.make_current(before.directory.name)
    old_key = before.tls.key.read_bytes()
    used: list[Any] = []
    reported: list[str | None] = []
    clock = LaterClock()
    moves = [True]
    renewal = Renewal(
        enrolments, before, clock, use=used.append, report=reported.append, paused=lambda: moves[0], waits=growing_waits
    )
    clock.later = 2410.0
    renewal.step()
    moves[0] = False
    clock.later = 2390.0
    renewal.step()
    assert server.asked.count("/v1/renew") == 0
    server.change = lambda answer: b"nonsense"
    clock.later = 2410.0
    wait_for(lambda: renewal.step() or reported, "the failure")
    assert "was not renewed" in str(reported[0])
    assert enrolments.current() == before
    server.change = lambda answer: answer
    server.broker = "mqtts://typo.example"
    clock.later += 300.0
    wait_for(lambda: renewal.step() or used, "the renewal")
    now = enrolments.current()
    assert now is not None
    assert (used, reported[1:]) == ([now], [None])
    assert now.tls.key.read_bytes() != old_key
    assert not before.directory.exists()
    assert now.grant.broker == before.grant.broker, "a renewal must not change the broker's address"
    assert enrolments.granted_for(before.grant.token, server.url, clock.now()) == now
    assert enrolments.granted_for(before.grant.token, server.url, now.grant.not_after) is None
