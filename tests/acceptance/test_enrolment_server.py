"""From `acm ca init` to a revoked certificate: the command lines, and the enrolment server over HTTPS."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.contract.enrolment import CA_PATH, ENROLL_PATH, RENEW_PATH
from broker.contract.enrolment_token import EnrolmentToken, fingerprint_of
from tests.acceptance.conftest import Program
from tests.support.brokers import free_port
from tests.support.enrolling import EnrollingAgent
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
BROKER = "mqtts://mqtt.example.org"


class Place:
    """Where one authority, one ledger and perhaps one enrolment server are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca"
        self.environment = {"ACM_LEDGER": f"sqlite:///{directory}/ledger.db", "ACM_CA": str(self.ca)}
        self.url = f"https://127.0.0.1:{free_port()}"
        self.program: Program | None = None

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "broker", *words],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def acm(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def serve(self) -> Program:
        argv = [sys.executable, "-m", "broker", "enroll-server", "--listen", self.url[8:], "--broker", BROKER]
        self.program = Program(argv, self.directory / "enroll-server.log", **self.environment)
        wait_for(lambda: "enrolment_server_started" in self.program_log(), "the enrolment server to listen")
        return self.program

    def program_log(self) -> str:
        assert self.program is not None
        assert self.program.process.poll() is None, self.program.log.read_text()
        return self.program.log.read_text()

    def revoked(self) -> list[int]:
        return [entry.serial_number for entry in x509.load_pem_x509_crl((self.ca / "crl.pem").read_bytes())]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    if place.program is not None:
        place.program.stop()


def pinned(url: str, token: EnrolmentToken) -> httpx.Client:
    """What an agent does on first contact: believe the authority only if the token names it, then only that one."""
    certificate = httpx.get(url + CA_PATH, verify=_trusting_anyone()).json()["certificate"]
    assert fingerprint_of(ssl.PEM_cert_to_DER_cert(certificate)) == token.fingerprint
    context = ssl.create_default_context(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return httpx.Client(base_url=url, verify=context)


def _trusting_anyone() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_an_agents_way_from_token_to_revocation(place: Place) -> None:
    place.acm("ca", "init")
    place.acm("ca", "server-certificate", "localhost", "127.0.0.1")
    program = place.serve()
    token = EnrolmentToken.parse(place.run("token", "create", "web-01", "--ttl", "10m").stdout)
    agent, new_key = EnrollingAgent("web-01"), Ed25519PrivateKey.generate()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(place.url + CA_PATH)
    with pinned(place.url, token) as client:
        enrolled = client.post(ENROLL_PATH, json=asdict(agent.enroll(token.text))).json()
        assert (enrolled["agent"], enrolled["broker"]) == ("web-01", BROKER)
        assert client.post(ENROLL_PATH, json=asdict(agent.enroll(token.text))).json() == enrolled
        assert client.post(ENROLL_PATH, json=asdict(EnrollingAgent("web-01").enroll(token.text))).status_code == 409
        renewal = asdict(agent.renew(enrolled["certificate"], new_key))
        renewed = client.post(RENEW_PATH, json=renewal).json()
        assert renewed["enrolment_id"] == enrolled["enrolment_id"]
        (listed,) = place.acm("enrolment", "list", "--agent", "web-01")
        assert (listed["id"], listed["revoked_at"]) == (enrolled["enrolment_id"], None)
        assert place.acm("enrolment", "revoke", "web-01", "--reason", "key-compromise")[0]["reason"] == "key-compromise"
        assert client.post(RENEW_PATH, json=renewal).status_code == 403
    given = [x509.load_pem_x509_certificate(it["certificate"].encode()) for it in (enrolled, renewed)]
    listed_serials, serials = set(place.revoked()), {certificate.serial_number for certificate in given}
    assert serials <= listed_serials
    assert len(listed_serials - serials) <= 1, "more than the canary of a round that ends sessions"
    assert [row["state"] for row in place.acm("token", "list")] == ["used"]
    assert token.secret not in program.log.read_text()
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(20) == 0
    assert "enrolment_server_stopped" in program.log.read_text()


def test_acm_agent_enrols_with_it_once_a_token(place: Place) -> None:
    place.acm("ca", "init")
    place.acm("ca", "server-certificate", "127.0.0.1")
    place.serve()
    token = place.acm("token", "create", "web-01")["token"]
    done = [enroll(place, token, "web-01", "state"), enroll(place, token, "web-01", "state")]
    assert [once.returncode for once in done] == [0, 0], done
    enrolled, again = (json.loads(once.stdout) for once in done)
    assert (enrolled["broker"], enrolled["enrolment_id"]) == (BROKER, again["enrolment_id"])
    assert [row["id"] for row in place.acm("enrolment", "list", "--agent", "web-01")] == [enrolled["enrolment_id"]]
    other_key = enroll(place, token, "web-01", "elsewhere")
    assert_one_sentence(other_key, 1, "another key")
    stranger = enroll(place, place.acm("token", "create", "web-02")["token"], "web-01", "elsewhere")
    assert_one_sentence(stranger, 1, "The token is not for 'web-01'")


def enroll(place: Place, token: str, agent: str, state: str) -> subprocess.CompletedProcess[str]:
    words = ["--server", place.url, "--token", "-", "--agent", agent, "--state", str(place.directory / state)]
    return subprocess.run(
        [sys.executable, "-m", "consumer", "enroll", *words, "--json"],
        cwd=ROOT,
        input=token + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_running_server_lists_what_was_revoked_elsewhere(place: Place) -> None:
    place.acm("ca", "init")
    place.acm("ca", "server-certificate", "127.0.0.1")
    place.serve()
    token = EnrolmentToken.parse(place.acm("token", "create", "web-01")["token"])
    with pinned(place.url, token) as client:
        client.post(ENROLL_PATH, json=asdict(EnrollingAgent("web-01").enroll(token.text))).raise_for_status()
    place.acm("enrolment", "revoke", "web-01", "--crl", str(place.directory / "another.pem"))
    wait_for(place.revoked, "the server to write the list")


def test_what_goes_wrong_is_one_sentence_with_a_code(place: Place) -> None:
    assert_one_sentence(place.run("token", "create", "web-01"), 1, "make one with `acm ca init")
    assert_one_sentence(place.run("enroll-server"), 3, "--broker or enroll_broker")
    place.acm("ca", "init")
    for words, code, said in (
        (["ca", "init"], 1, "is not empty"),
        (["token", "create", "acm-server"], 2, "the server's own name"),
        (["enroll-server", "--broker", "mqtt://c"], 1, "`acm ca server-certificate` makes such a pair"),
    ):
        assert_one_sentence(place.run(*words), code, said)


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int, said: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), (done.stdout, done.stderr)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
