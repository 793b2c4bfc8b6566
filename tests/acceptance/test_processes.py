"""The four programs as systems really run them: without a log, without descriptors, and with any signal."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.app.factories import open_database, open_ledger, utc_now
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.messages import Origin
from broker.enrolment.tokens import TokenStore
from broker.ledger.enqueue import CommandRequest
from broker.signing.key_store import create_signing_keys
from tests.acceptance.conftest import ROOT
from tests.support.brokers import free_port
from tests.support.secured import SecuredSite
from tests.support.waiting import wait_for

FULL_DISK = "</dev/null >/dev/full 2>&1"
CLOSED_PIPE = "</dev/null"  # what the programs get if nothing else is said
CLOSED_DESCRIPTORS = "<&- >&- 2>&-"


class Machine:
    """A secured broker, its servers and one agent, each started by a shell with a redirection of its streams."""

    def __init__(self, directory: Path) -> None:
        self.site = SecuredSite(directory)
        create_signing_keys(directory / "ca" / "signing", datetime.now(UTC))
        self.directory = directory
        self.config = ["--config", str(self.site.directory / "server.toml")]
        self.port = free_port()
        self.programs: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, redirection: str, *argv: str) -> subprocess.Popen[bytes]:
        reading, writing = os.pipe()
        os.close(reading)
        shell = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
        program = subprocess.Popen(
            [*shell, sys.executable, "-m", *argv],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ACM_ENROLL_LISTEN": f"127.0.0.1:{self.port}"},
            stdout=writing,
            stderr=writing,
        )
        os.close(writing)
        self.programs[name] = program
        return program

    def start_all(self, redirection: str) -> None:
        self.start("broker", redirection, "broker", "broker", "run", "--dir", str(self.site.directory))
        self.start("server", redirection, "broker", "server", *self.config)
        self.start("enroll-server", redirection, "broker", "enroll-server", *self.config)
        wait_for(lambda: listens(self.port), "the enrolment server")
        with open_database(self.site.config.ledger) as database:
            token = EnrolmentToken(secrets.token_urlsafe(32), self.site.authority.fingerprint)
            TokenStore(database, now=utc_now).add("web-01", token, timedelta(minutes=5))
        enroll = ["--server", f"https://127.0.0.1:{self.port}", "--token", "-", "--agent", "web-01"]
        argv = [sys.executable, "-m", "consumer", "enroll", *enroll, "--state", str(self.directory / "web-01")]
        done = subprocess.run(argv, input=token.text, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        self.start("agent", redirection, "consumer", "run", "--state", str(self.directory / "web-01"))

    def complete_a_command(self) -> None:
        with open_ledger(self.site.config.ledger) as ledger:
            command = CommandRequest("get-agent-configuration", {}, Origin("test", "test"))
            row = ledger.add_command("web-01", command)
            wait_for(lambda: ledger.get(row.id).result, f"a result of {row.id}")

    def signal(self, number: int) -> None:
        for program in self.programs.values():
            program.send_signal(number)

    def alive(self) -> list[str]:
        return [name for name, program in self.programs.items() if program.poll() is None]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        for program in machine.programs.values():
            program.kill()
            program.wait()


@pytest.mark.parametrize("redirection", [FULL_DISK, CLOSED_PIPE, CLOSED_DESCRIPTORS])
def test_programs_work_on_without_a_log(machine: Machine, redirection: str) -> None:
    machine.start_all(redirection)
    machine.complete_a_command()
    machine.site.revoke()  # the broker says that it reloads
    machine.signal(signal.SIGHUP)  # agent and server log that they connect again
    machine.complete_a_command()
    assert machine.alive() == list(machine.programs)
    machine.signal(signal.SIGTERM)
    assert [program.wait(20) for program in machine.programs.values()] == [0, 0, 0, 0]
