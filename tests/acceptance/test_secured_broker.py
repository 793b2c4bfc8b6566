"""From nothing to an agent on a secured broker, and out again, by the command lines of the README alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.app.config import load_config
from tests.acceptance.conftest import Program
from tests.support.brokers import free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

ROOT = Path(__file__).resolve().parents[2]


class Installation:
    """All that runs on one machine, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = directory / "broker" / "server.toml"
        self.listen = f"127.0.0.1:{free_port()}"
        self.programs: list[Program] = []

    def run(self, module: str, *arguments: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.directory,
            env=self._environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def acm(self, *arguments: str) -> Any:
        return json.loads(self.run("broker", *arguments, "--config", str(self.settings), "--json"))

    def start(self, name: str, module: str, *arguments: str) -> Program:
        argv = [sys.executable, "-m", module, *arguments]
        program = Program(argv, self.directory / f"{name}.log", cwd=self.directory, **self._environment())
        self.programs.append(program)
        return program

    def agent(self, name: str) -> Any:
        return next((row for row in self.acm("agents") if row["name"] == name), None)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "ACM_ENROLL_LISTEN": self.listen}


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(tmp_path)
    yield installation
    for program in reversed(installation.programs):
        program.stop()


def test_secured_broker_from_its_authority_to_a_revoked_agent(installation: Installation) -> None:
    installation.run("broker", "ca", "init")
    installation.run("broker", "broker", "config", "--out", "broker", "--port", str(free_port()))
    broker = installation.start("broker", "broker", "broker", "run", "--dir", "broker")
    wait_for(lambda: "Mosquitto listens" in broker.log.read_text(), "the broker")
    config = ["--config", "broker/server.toml"]
    installation.start("server", "broker", "server", *config)
    enrolments = installation.start("enroll-server", "broker", "enroll-server", *config)
    wait_for(lambda: "enrolment_server_started" in enrolments.log.read_text(), "the enrolment server")
    token = installation.acm("token", "create", "web-01")["token"]
    enroll = ["--server", f"https://{installation.listen}", "--token", "-", "--agent", "web-01", "--state", "state"]
    installation.run("consumer", "enroll", *enroll, text=token)
    agent = installation.start("agent", "consumer", "run", "--state", "state")
    wait_for(lambda: (row := installation.agent("web-01")) and row["state"] == "online", "the agent to be online")
    shown = installation.acm("send", "web-01", "get-agent-configuration", "--wait", "40")["commands"][0]
    assert shown["result"]["outcome"] == "success"

    installation.acm("enrolment", "revoke", "web-01")
    wait_for(lambda: installation.agent("web-01")["state"] != "online", "the agent to be offline")
    wait_for(
        lambda: '"session_ended","agent":"web-01"' in enrolments.log.read_text(),
        "the session to be ended",
    )
    wait_for(lambda: agent.log.read_text().count("mqtt_connection_lost") > 0, "the agent to notice")
    refused = broker.log.read_text().count("verify failed")
    wait_for(lambda: broker.log.read_text().count("verify failed") > refused, "the agent to be refused")
    assert installation.agent("web-01")["state"] != "online"
    assert agent.process.poll() is None
    assert broker.process.poll() is None
    assert load_config(installation.settings, {}, {}).broker.startswith("mqtts://localhost:")


def test_configuration_is_written_once_and_certificates_are_renewed(installation: Installation) -> None:
    installation.run("broker", "ca", "init")
    assert "Kept: " not in installation.run("broker", "broker", "config", "--out", "broker")
    again = installation.run("broker", "broker", "config", "--out", "broker")
    assert "Kept: mosquitto.conf, acl, server.toml." in again
    made = installation.acm("ca", "client-certificate", "--out", ".")
    assert Path(made["certificate"]).name == "acm-server.crt"
