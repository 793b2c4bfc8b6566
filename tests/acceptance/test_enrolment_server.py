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
from tests.support.postgresql import ledger_url_in
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
BROKER = "mqtts://mqtt.example.org"


class EnrolmentSite:
    """Where one authority, one ledger and perhaps one enrolment server are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca"
        self.environment = {"ACM_LEDGER": ledger_url_in(directory), "ACM_CA": str(self.ca)}
        self.url = f"https://127.0.0.1:{free_port()}"
        self.program: Program | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "broker", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def acm(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
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
def site(tmp_path: Path) -> Iterator[EnrolmentSite]:
    site = EnrolmentSite(tmp_path)
    yield site
    if site.program is not None:
        site.program.stop()


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


def test_life_of_an_enrolment_from_token_to_revocation(site: EnrolmentSite) -> None:
    site.acm("ca", "init")
    site.acm("ca", "server-certificate", "localhost", "127.0.0.1")
    program = site.serve()
    token = EnrolmentToken.parse(site.run("token", "create", "web-01", "--ttl", "10m").stdout)
    agent, new_key = EnrollingAgent("web-01"), Ed25519PrivateKey.generate()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(site.url + CA_PATH)
    with pinned(site.url, token) as client:
        enrolled = client.post(ENROLL_PATH, json=asdict(agent.enroll(token.text))).json()
        assert (enrolled["agent"], enrolled["broker"]) == ("web-01", BROKER)
        assert client.post(ENROLL_PATH, json=asdict(agent.enroll(token.text))).json() == enrolled
        assert client.post(ENROLL_PATH, json=asdict(EnrollingAgent("web-01").enroll(token.text))).status_code == 409
        renewal = asdict(agent.renew(enrolled["certificate"], new_key))
        renewed = client.post(RENEW_PATH, json=renewal).json()
        assert renewed["enrolment_id"] == enrolled["enrolment_id"]
        (listed,) = site.acm("enrolment", "list", "--agent", "web-01")
        assert (listed["id"], listed["revoked_at"]) == (enrolled["enrolment_id"], None)
        assert site.acm("enrolment", "revoke", "web-01", "--reason", "key-compromise")[0]["reason"] == "key-compromise"
        assert client.post(RENEW_PATH, json=renewal).status_code == 403
    given = [x509.load_pem_x509_certificate(it["certificate"].encode()) for it in (enrolled, renewed)]
    listed_serials, serials = set(site.revoked()), {certificate.serial_number for certificate in given}
    assert serials <= listed_serials
    assert len(listed_serials - serials) <= 1, "more than the canary of a round that ends sessions"
    assert [row["state"] for row in site.acm("token", "list")] == ["used"]
    assert token.secret not in program.log.read_text()
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(20) == 0
    assert "enrolment_server_stopped" in program.log.read_text()


def test_acm_agent_enrolls_once_with_each_token(site: EnrolmentSite) -> None:
    site.acm("ca", "init")
    site.acm("ca", "server-certificate", "127.0.0.1")
    site.serve()
    token = site.acm("token", "create", "web-01")["token"]
    done = [enroll(site, token, "web-01", "state"), enroll(site, token, "web-01", "state")]
    assert [once.returncode for once in done] == [0, 0], done
    enrolled, again = (json.loads(once.stdout) for once in done)
    assert (enrolled["broker"], enrolled["enrolment_id"]) == (BROKER, again["enrolment_id"])
    assert [row["id"] for row in site.acm("enrolment", "list", "--agent", "web-01")] == [enrolled["enrolment_id"]]
    other_key = enroll(site, token, "web-01", "elsewhere")
    assert_fails(other_key, 1, enrolled["enrolment_id"])
    stranger = enroll(site, site.acm("token", "create", "web-02")["token"], "web-01", "elsewhere")
    assert_fails(stranger, 1, "'web-01'")


def enroll(site: EnrolmentSite, token: str, agent: str, state: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--server", site.url, "--token", "-", "--agent", agent, "--state", str(site.directory / state)]
    return subprocess.run(
        [sys.executable, "-m", "consumer", "enroll", *arguments, "--json"],
        cwd=ROOT,
        input=token + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_running_server_lists_revocations_made_elsewhere(site: EnrolmentSite) -> None:
    site.acm("ca", "init")
    site.acm("ca", "server-certificate", "127.0.0.1")
    site.serve()
    token = EnrolmentToken.parse(site.acm("token", "create", "web-01")["token"])
    with pinned(site.url, token) as client:
        client.post(ENROLL_PATH, json=asdict(EnrollingAgent("web-01").enroll(token.text))).raise_for_status()
    site.acm("enrolment", "revoke", "web-01", "--crl", str(site.directory / "another.pem"))
    wait_for(site.revoked, "the server to write the list")


def test_failures_have_a_message_and_an_exit_code(site: EnrolmentSite) -> None:
    assert_fails(site.run("token", "create", "web-01"), 1, "acm ca init")
    assert_fails(site.run("enroll-server"), 3, "enroll_broker")
    site.acm("ca", "init")
    for arguments, code, named in (
        (["ca", "init"], 1, str(site.directory / "ca")),
        (["token", "create", "acm-server"], 2, "acm-server"),
        (["enroll-server", "--broker", "mqtt://c"], 1, "acm ca server-certificate"),
    ):
        assert_fails(site.run(*arguments), code, named)


def assert_fails(done: subprocess.CompletedProcess[str], code: int, named: str) -> None:
    """Check the exit code, and that stderr names a cause or a remedy."""
    assert (done.returncode, done.stdout) == (code, ""), (done.stdout, done.stderr)
    assert named in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
