"""`acm doctor` on an installation by the command lines of the README, and on one that hangs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.app.factories import open_database
from tests.acceptance.conftest import Program
from tests.support.brokers import free_port
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

ROOT = Path(__file__).resolve().parents[2]
FAILED = 10


class Installation:
    """A secured broker and its server, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "broker" / "server.toml"
        self.programs: dict[str, Program] = {}

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "broker", *arguments]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(argv, cwd=self.directory, env=variables, capture_output=True, text=True, timeout=90)

    def start(self, name: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", "broker", *arguments]
        log = self.directory / f"{name}.log"
        self.programs[name] = Program(argv, log, cwd=self.directory, PYTHONPATH=str(ROOT))

    def doctor(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit code of `acm doctor --json`, and what it found to be not OK."""
        done = self.run("doctor", "--json", "--config", str(self.config))
        return done.returncode, [it for it in json.loads(done.stdout) if it["level"] != "ok"]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    assert made.run("ca", "init", "--dir", "ca").returncode == 0
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    configure = ("broker", "config", "--ca", "ca", "--ledger", ledger, "--out", "broker", "--port", str(free_port()))
    assert made.run(*configure).returncode == 0
    made.start("broker", "broker", "run", "--dir", "broker")
    made.start("server", "server", "--config", str(made.config))
    server = made.programs["server"]
    wait_for(lambda: "mqtt_connected" in server.log.read_text(), "the server to be connected")
    yield made
    for program in reversed(made.programs.values()):
        program.stop()


def test_installation_of_the_readme_is_found_healthy_then_broken(installation: Installation) -> None:
    assert installation.doctor() == (0, [])
    shown = installation.run("doctor", "--config", str(installation.config))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert {line.split()[0] for line in shown.stdout.splitlines()} == {"OK"}
    assert "mqtt_connection_lost" not in installation.programs["server"].log.read_text()

    installation.programs["server"].process.send_signal(signal.SIGSTOP)
    code, found = installation.doctor()
    installation.programs["server"].process.send_signal(signal.SIGCONT)
    assert (code, [it["code"] for it in found]) == (FAILED, ["server_stopped"])
    assert found[0]["fix"] == f"kill -CONT {installation.programs['server'].process.pid}"

    installation.programs["server"].stop()
    installation.programs["broker"].stop()
    code, found = installation.doctor()
    assert (code, [it["code"] for it in found]) == (FAILED, ["server_not_running", "broker_unreachable", "not_checked"])
    shown = installation.run("doctor", "--config", str(installation.config))
    assert shown.stderr == "acm: 2 checks failed: server, broker.\n"
    assert "Fix: systemctl start acm-server" in shown.stdout


def test_configuration_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('ledgr = "sqlite:///x.db"\n')
    done = Installation(tmp_path).run("doctor", "--json", "--config", "server.toml")
    (found,) = json.loads(done.stdout)
    assert (done.returncode, found["code"], "ledgr" in found["found"]) == (FAILED, "configuration_unusable", True)


def test_database_that_hangs_does_not_hang_the_doctor(tmp_path: Path) -> None:
    instance = PostgreSQL()
    try:
        url = instance.new_database()
        open_database(url).close()
        with instance.stopped():
            environment = {"ACM_LEDGER": url, "ACM_BROKER": f"mqtt://127.0.0.1:{free_port()}"}
            done = Installation(tmp_path).run("doctor", "--json", **environment)
    finally:
        instance.remove()
    found = {it["check"]: it["code"] for it in json.loads(done.stdout)}
    assert done.returncode == FAILED
    assert found["ledger"] in ("ledger_unreachable", "check_timed_out")
    assert (found["broker"], found["disk"]) == ("broker_unreachable", "ok")
