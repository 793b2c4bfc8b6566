"""The authority is replaced under a broker, servers and agents that run, by the command lines alone."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.testing import CliRunner

from broker.app.factories import open_database, open_ledger, utc_now
from broker.cli.main import app
from broker.cli.rollover import RolloverUnfinished
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.messages import Origin
from broker.enrolment.rollover import rollover_progress
from broker.enrolment.store import EnrolmentStore
from broker.ledger.enqueue import CommandRequest
from broker.ledger.tables import CommandState
from broker.pki.authority import CertificateAuthority
from consumer.enrolment.enroll import enroll_by_hand
from consumer.system.clock import SystemClock
from tests.acceptance.conftest import Program
from tests.acceptance.test_secured_broker import Installation
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.waiting import wait_for


class RolloverSite(Installation):
    """A secured installation whose certificates of agents live for seconds."""

    def begin(self) -> None:
        self.invoke("ca", "init", "--dir", str(self.authority))
        out, port = str(self.settings.parent), str(free_port())
        self.invoke(
            *("broker", "config", "--out", out, "--port", port, "--ca", str(self.authority), "--ledger", self.ledger)
        )
        broker = self.start("broker", "broker", "broker", "run", "--dir", "broker")
        wait_for(lambda: "Mosquitto listens" in broker.log.read_text(), "the broker")
        self.start("server", "broker", "server", "--config", "broker/server.toml")
        self.enrolments = self.start("enroll-server", "broker", "enroll-server", "--config", "broker/server.toml")
        wait_for(lambda: "enrolment_server_started" in self.enrolments.log.read_text(), "the enrolment server")

    @property
    def authority(self) -> Path:
        return self.directory / "acm-ca"

    def invoke(self, *arguments: str) -> str:
        """Run acm in this process, which saves its start; an error is raised."""
        done = CliRunner().invoke(app, [*arguments], env={"ACM_ENROLL_LISTEN": self.listen}, catch_exceptions=False)
        return done.stdout

    def acm(self, *arguments: str) -> Any:
        return json.loads(self.invoke(*arguments, "--config", str(self.settings), "--json"))

    def enroll(self, name: str) -> None:
        token, clock = EnrolmentToken.parse(self.acm("token", "create", name)["token"]), SystemClock()
        url, state = f"https://{self.listen}", self.directory / name
        enroll_by_hand(state, url, token, name, clock, clock.monotonic() + 60)

    def start_agent(self, name: str) -> Program:
        return self.start(name, "consumer", "run", "--state", name)

    @property
    def ledger(self) -> str:
        return f"sqlite:///{self.directory}/acm-ledger.db"

    def not_moved(self) -> tuple[str, ...]:
        """Return what `acm ca rollover status` shows, without its start."""
        with open_database(self.ledger) as database:
            store = EnrolmentStore(database, now=utc_now)
            authority = CertificateAuthority(self.authority, now=utc_now)
            return rollover_progress(store, authority, utc_now(), timedelta(days=90)).not_moved

    def trusted_by(self, name: str) -> list[x509.Certificate]:
        path = self.directory / name / "enrolment" / "current" / "ca.pem"
        try:
            return x509.load_pem_x509_certificates(path.read_bytes())
        except FileNotFoundError:  # a renewal replaces the enrolment
            return []

    def answers(self, name: str) -> bool:
        """Return whether a command to the agent succeeds."""
        with open_ledger(self.ledger) as ledger:
            request = CommandRequest("get-agent-configuration", {}, Origin("test", "acceptance"))
            sent = ledger.add_command(name, request).id
            row = wait_for(
                lambda: (row := ledger.get(sent)).state is CommandState.COMPLETED and row, "the command's result", 40
            )
            return row.result is not None and row.result["outcome"] == "success"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RolloverSite]:
    monkeypatch.setenv("ACM_CERTIFICATE_LIFETIME", "9s")
    site = RolloverSite(tmp_path)
    yield site
    for program in reversed(site.programs):
        program.stop()


def test_authority_is_replaced_without_touching_an_agent(site: RolloverSite) -> None:
    site.begin()
    for name in ("web-01", "web-02"):
        site.enroll(name)
    site.start_agent("web-01")
    former = (site.authority / "ca.crt").read_text()

    begun = site.acm("ca", "rollover", "begin")
    assert (begun["moved"], begun["not_moved"]) == ([], ["web-01", "web-02"])
    wait_for(lambda: len(site.trusted_by("web-01")) == 2, "web-01 to trust both authorities")
    wait_for(lambda: site.not_moved() == ("web-02",), "web-01 to renew its certificate", 60)
    with raises_code(RolloverUnfinished, "agents_not_moved"):
        site.acm("ca", "rollover", "finish")
    site.start_agent("web-02")  # it was off when its certificate expired
    wait_for(lambda: site.not_moved() == (), "web-02 to move", 60)

    site.acm("ca", "rollover", "finish")
    assert (site.authority / "ca.crt").read_text() != former
    assert not (site.authority / "next.key").exists()
    assert former not in (site.directory / "broker" / "ca.crt").read_text()
    for name in ("web-01", "web-02"):
        assert site.answers(name)
        wait_for(lambda name=name: len(site.trusted_by(name)) == 1, "the agent to trust the successor alone", 60)  # type: ignore[misc]
    site.acm("enrolment", "revoke", "web-01")
    wait_for(
        lambda: '"session_ended","agent":"web-01"' in site.enrolments.log.read_text(),
        "the session of a revoked agent to be ended",
        60,
    )
    assert "Traceback" not in "".join(program.log.read_text() for program in site.programs)
