"""Requests to an enrolment server that stalls, fails, or is never asked."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from broker.contract.enrolment import CA_PATH
from broker.contract.enrolment_token import EnrolmentToken
from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.keys import new_key
from consumer.enrolment.store import Enrolment
from consumer.errors import EnrolmentError
from tests.support.authority import TestAuthority
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.support.https_server import Answer, HttpsServer, content_of
from tests.unit.consumer.enrolment.test_enrolment_directory import GRANT

TOKEN = EnrolmentToken("s" * 22, "0" * 64)
TIME_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    with HttpsServer.running(tmp_path_factory.mktemp("https")) as server:
        yield server


def enroll(server: HttpsServer, clock: TurnedClock, cancelled: threading.Event, answer: Answer) -> None:
    server.answers[CA_PATH] = answer
    client = EnrolmentClient(server.url(""), clock, clock.monotonic() + TIME_S, cancelled)
    client.enroll(TOKEN, "web-01", new_key())


def test_late_response_of_the_server_is_not_used(server: HttpsServer) -> None:
    clock = TurnedClock()

    def late(request: BaseHTTPRequestHandler) -> None:
        clock.turn(TIME_S)
        content_of(b"{}")(request)

    with raises_code(EnrolmentError, "timed_out"):
        enroll(server, clock, threading.Event(), late)


def test_response_after_a_cancellation_is_not_used(server: HttpsServer) -> None:
    cancelled = threading.Event()

    def cancelling(request: BaseHTTPRequestHandler) -> None:
        cancelled.set()
        content_of(b"{}")(request)

    with raises_code(EnrolmentError, "cancelled"):
        enroll(server, TurnedClock(), cancelled, cancelling)


def test_broken_server_may_be_asked_again_later(server: HttpsServer) -> None:
    with raises_code(EnrolmentError, "unavailable"):
        enroll(server, TurnedClock(), threading.Event(), lambda request: request.send_error(503))


def test_nothing_is_renewed_without_the_certificate(tmp_path: Path) -> None:
    clock = TurnedClock()
    client = EnrolmentClient("https://127.0.0.1:1", clock, clock.monotonic() + TIME_S, threading.Event())
    with raises_code(EnrolmentError, "enrolment_unusable"):
        client.renew(Enrolment(tmp_path, GRANT), new_key())


def test_authority_that_came_along_with_the_right_one_is_not_trusted(server: HttpsServer) -> None:
    right, clock = TestAuthority(), TurnedClock()
    both = json.dumps({"certificate": right.pem + server.ca_file.read_text()}).encode()
    server.answers[CA_PATH] = content_of(both)
    client = EnrolmentClient(server.url(""), clock, clock.monotonic() + TIME_S, threading.Event())
    with raises_code(EnrolmentError, "unreachable"):  # it is this server's own certificate: the token is not sent
        client.enroll(EnrolmentToken("s" * 22, right.fingerprint), "web-01", new_key())


def test_nothing_is_renewed_with_a_certificate_that_is_no_text(tmp_path: Path) -> None:
    TestAuthority().write_identity(tmp_path, "web-01")
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "certificate.pem").write_bytes(b"\xff")
    clock = TurnedClock()
    client = EnrolmentClient("https://127.0.0.1:1", clock, clock.monotonic() + TIME_S, threading.Event())
    with raises_code(EnrolmentError, "enrolment_unusable"):
        client.renew(Enrolment(tmp_path, GRANT), new_key())
