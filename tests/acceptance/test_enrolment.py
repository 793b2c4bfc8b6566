"""Enrolling real agents with a real HTTPS server and a Mosquitto that demands certificates, whatever dies."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROOT, Program, Site
from tests.support.authority import TestAuthority, TlsBroker
from tests.support.brokers import free_port
from tests.support.fakes.enrolment_server import EnrolmentServer
from tests.support.waiting import wait_for

STEPS = ("keyed", "staged", "trial", "carried", "committed")


@dataclass
class SecureSite:
    """A server of its own behind a broker that demands certificates, and the enrolment server that gives them."""

    site: Site
    broker: TlsBroker
    enrolment: EnrolmentServer

    def enroll(self, state: Path, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        words = ["--server", self.enrolment.url, "--token", "-", "--state", str(state)]
        return subprocess.run(
            [sys.executable, "-m", "consumer", "enroll", *words, *arguments],
            cwd=ROOT,
            input=token or self.enrolment.new_token(),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def run_agent(self, state: Path) -> Program:
        argv = [sys.executable, "-m", "consumer", "run", "--state", str(state)]
        program = Program(argv, self.site.directory / "agent.log", ACM_ACCEPT_UNSIGNED="true")
        self.site.programs.append(program)
        return program


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[SecureSite]:
    authority = TestAuthority()
    directory = tmp_path / "secure"
    with TlsBroker(authority, directory / "broker").running() as broker:
        enrolment = EnrolmentServer(authority, broker.tls_url)
        with enrolment.running(directory / "enrolment"):
            site = Site(broker.url, directory)
            site.start_server()
            try:
                yield SecureSite(site, broker, enrolment)
            finally:
                site.stop()


def current(state: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "enrolment", "--state", str(state), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def send(site: Site, command_type: str, timeout_s: float | None = None, **parameters: str) -> str:
    return site.enqueue("web-01", command_type, parameters, timeout_s)


def is_online(site: Site) -> bool:
    with site.opened_ledger() as ledger:
        return any(row.status and row.status.online for row in ledger.agents() if row.name == "web-01")


def works(site: Site) -> bool:
    """Whether the site's server commands the agent."""
    return bool(site.result(send(site, "get-agent-configuration", section="broker"))["outcome"] == "success")


def ask_to_enroll(site: Site, secure: SecureSite, token: str, timeout_s: float | None = None) -> str:
    return send(site, "enroll-agent", timeout_s, server=secure.enrolment.url, token=token)


def test_agent_is_enrolled_before_its_first_start(secure: SecureSite, tmp_path: Path) -> None:
    state, token = tmp_path / "state", secure.enrolment.new_token()
    first = secure.enroll(state, "--agent", "web-01", "--json", token=token)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["broker"] == secure.broker.tls_url
    again = secure.enroll(state, "--agent", "web-01", "--json", token=token)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    keys = list((state / "enrolment").rglob("key.pem"))
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600]
    secure.run_agent(state)
    secure.site.wait_online("web-01")
    assert works(secure.site)


def test_command_moves_the_agent_to_another_broker_and_server(site: Site, secure: SecureSite) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    waiting = send(secure.site, "get-agent-configuration", section="broker")
    token = secure.enrolment.new_token()
    sent = ask_to_enroll(site, secure, token)
    result = site.result(sent)
    assert (result["outcome"], result["data"]["state"]) == ("success", "carried")
    assert result["data"]["broker"] == secure.broker.tls_url
    secure.site.wait_online("web-01")
    assert secure.site.result(waiting)["data"]["configuration"]["broker"] == secure.broker.tls_url
    assert works(secure.site)
    wait_for(lambda: not is_online(site), "the old server to know that the agent has left")
    assert current(site.state("web-01"))["server"] == secure.enrolment.url
    shown = site.show(sent)
    assert token not in json.dumps(shown)
    assert shown["command"]["parameters"]["token"] == shown["result"]["command"]["parameters"]["token"] == "********"
    assert not [log for log in site.directory.rglob("*.log") if token in log.read_text()]


def test_agent_moves_to_another_server_and_back(secure: SecureSite, site: Site, tmp_path: Path) -> None:
    """The epochs of both ledgers overlap, and each server can command the agent at once."""
    back = TestAuthority()
    with TlsBroker(back, tmp_path / "back-broker").running() as broker:
        enrolment = EnrolmentServer(back, broker.tls_url)
        with enrolment.running(tmp_path / "back-enrolment"):
            old = Site(broker.url, tmp_path / "back")
            (tmp_path / "back").mkdir()
            try:
                old.start_server()
                home = SecureSite(old, broker, enrolment)
                state = tmp_path / "state"
                assert home.enroll(state, "--agent", "web-01").returncode == 0
                home.run_agent(state)
                old.wait_online("web-01")
                assert works(old)
                for here, there in ((home, secure), (secure, home)):
                    token = there.enrolment.new_token()
                    assert here.site.result(ask_to_enroll(here.site, there, token))["outcome"] == "success"
                    there.site.wait_online("web-01")
                    assert works(there.site)
            finally:
                old.stop()


def test_agent_re_enrolls_with_the_same_server(secure: SecureSite, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert secure.enroll(state, "--agent", "web-01").returncode == 0
    before = (state / "enrolment" / "current").resolve()
    secure.run_agent(state)
    secure.site.wait_online("web-01")
    sent = ask_to_enroll(secure.site, secure, secure.enrolment.new_token())
    later = send(secure.site, "get-agent-configuration", section="broker")
    assert secure.site.result(sent)["outcome"] == "success"
    assert secure.site.result(later)["outcome"] == "success"
    wait_for(lambda: not before.exists(), "the old enrolment to be removed")
    assert works(secure.site)


def test_pending_command_during_a_move_is_rejected_and_not_run(site: Site, secure: SecureSite) -> None:
    sent = ask_to_enroll(site, secure, secure.enrolment.new_token())
    later = send(site, "restart-agent")
    site.start_agent("web-01")
    assert site.result(sent)["outcome"] == "success"
    refused = site.result(later)
    assert refused["code"] == "rejected"
    assert secure.broker.tls_url in refused["message"]


def test_wrong_address_never_strands_the_agent(site: Site, secure: SecureSite) -> None:
    site.start_agent("web-01")
    before = site.wait_online("web-01")
    nowhere = f"https://127.0.0.1:{free_port()}"
    refused = site.result(send(site, "enroll-agent", server=nowhere, token=secure.enrolment.new_token()))
    assert (refused["code"], "cannot be reached" in refused["message"]) == ("failed", True)
    assert secure.site.server is not None
    secure.site.server.kill()
    result = site.result(ask_to_enroll(site, secure, secure.enrolment.new_token(), 5.0))
    assert (result["outcome"], result["data"]["state"]) == ("error", "rolled_back")
    assert "no server acknowledged a result. The agent keeps its previous enrolment." in result["message"]
    assert current(site.state("web-01")) is None
    assert works(site)
    assert site.wait_online("web-01")["incarnation"] == before["incarnation"]


@pytest.mark.parametrize("step", STEPS)
def test_kill_9_at_each_step_ends_with_a_true_result(site: Site, secure: SecureSite, step: str) -> None:
    crashing = site.start_crashing_agent("web-01", f"enroll-agent.{step}")
    site.wait_online("web-01")
    sent = ask_to_enroll(site, secure, secure.enrolment.new_token())
    assert crashing.process.wait(40) == -9
    site.start_agent("web-01")
    assert site.result(sent)["outcome"] == "success"
    secure.site.wait_online("web-01")
    assert works(secure.site)


def test_certificate_is_renewed_while_the_agent_works(secure: SecureSite, tmp_path: Path) -> None:
    state = tmp_path / "state"
    secure.enrolment.life_s = 6.0
    assert secure.enroll(state, "--agent", "web-01").returncode == 0
    secure.enrolment.life_s = 3600.0
    first = current(state)["not_after"]
    secure.run_agent(state)
    secure.site.wait_online("web-01")
    wait_for(lambda: current(state)["not_after"] > first, "the renewal")
    assert works(secure.site)
    assert len(list((state / "enrolment" / "enrolments").iterdir())) == 1


def test_manual_enrolment_of_an_enrolled_agent_needs_a_result(secure: SecureSite, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert secure.enroll(state, "--agent", "web-01").returncode == 0
    before = (state / "enrolment" / "current").resolve()
    done = secure.enroll(state)
    assert done.returncode == 0, done.stderr
    assert not before.exists()
    agent = secure.run_agent(state)
    secure.site.wait_online("web-01")
    refused = secure.enroll(state)
    assert (refused.returncode, "is running" in refused.stderr) == (4, True)
    assert agent.process.poll() is None
