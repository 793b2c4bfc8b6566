"""acm from another network, with nothing but an access token and the authority's certificate."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROOT, Program
from tests.support.namespaces import HERE, wired_namespaces
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

URL = f"https://{HERE['4']}:8444"
BROKER = "mqtt://127.0.0.1:1883"  # in a namespace of the test's own


class Network:
    """A site in one namespace: broker, server, agent and API. acm is in another one, in a directory with a token."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self.here, self.there = wired_namespaces(stack)
        self.desk = directory / "desk"
        self.desk.mkdir()
        ledger = f"sqlite:///{directory}/ledger.db"
        (directory / "api").mkdir()
        self._on_server("ca", "init", "--dir", "ca")
        self._on_server("ca", "server-certificate", HERE["4"], "--dir", "ca", "--out", "api")
        self._start("broker", "broker", "run", ready="Mosquitto")
        self._start("server", "server", "--broker", BROKER, "--ledger", ledger, ready='"event":"server_started"')
        pair = {"ACM_API_CERTIFICATE": f"{directory}/api/server.crt", "ACM_API_KEY": f"{directory}/api/server.key"}
        self._start(
            "api", "api", "--listen", f"{HERE['4']}:8444", "--ledger", ledger, ready='"event":"api_started"', **pair
        )
        agent = ["--agent", "web-01", "--broker", BROKER, "--state", "state", "--accept-unsigned"]
        self._run_program("agent", "consumer", "run", *agent)
        token = self._on_server("api", "token", "create", "alice", "--role", "operator", "--ledger", ledger)
        (self.desk / "token").write_text(token)
        (self.desk / "ca.pem").write_text((directory / "ca" / "ca.crt").read_text())

    def _on_server(self, *words: str) -> str:
        argv = [sys.executable, "-m", "broker", *words]
        done = subprocess.run(argv, cwd=self._directory, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def _start(self, name: str, *words: str, ready: str, **environment: str) -> None:
        program = self._run_program(name, "broker", *words, **environment)
        wait_for(lambda: ready in program.log.read_text(), f"{name} to be ready")

    def _run_program(self, name: str, module: str, *words: str, **environment: str) -> Program:
        argv = [*self.here.enter, sys.executable, "-m", module, *words]
        program = Program(argv, self._directory / f"{name}.log", cwd=self._directory, **environment)
        self._stack.callback(program.stop)
        return program

    def acm(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Call acm in the other namespace, as a user who has no configuration and no ledger there."""
        script = f'cd {self.desk} && exec "$@"'
        own = {"HOME": str(self.desk), "XDG_CONFIG_HOME": str(self.desk / "config"), "PYTHONPATH": str(ROOT)}
        return self.there.run("sh", "-c", script, "sh", sys.executable, "-m", "broker", *words, **own)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(stack, tmp_path)


def answer(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def test_acm_sends_waits_and_explains_with_nothing_but_a_token(network: Network) -> None:
    place = ["--server", URL, "--token-file", "token", "--api-ca", "ca.pem"]

    def is_online() -> bool:
        rows = json.loads(network.acm(*place, "agents", "--json").stdout or "[]")
        return [(row["name"], row["state"]) for row in rows] == [("web-01", "online")]

    wait_for(is_online, "the agent to be online", 60)
    (sent,) = answer(network.acm(*place, "send", "web-01", "restart-agent", "--wait", "60", "--json"))["commands"]
    assert (sent["outcome"], sent["command"]["origin"]) == ("success", {"name": "alice", "module": "api"})
    added = network.acm("context", "add", "prod", "--server", URL, "--token-file", "token", "--ca", "ca.pem")
    assert added.returncode == 0, added.stderr
    assert network.acm("context", "use", "prod").returncode == 0
    explained = answer(network.acm("explain", sent["id"][:-1], "--json"))
    assert (explained["state"], explained["outcome"]) == ("completed", "success")
    (network.desk / "a.toml").write_text("n = 1\n")
    words = ("apply-centralized-configuration", "--file", "artifact=a.toml", "--wait", "60", "--json")
    (applied,) = answer(network.acm("send", "web-01", *words))["commands"]
    (stored,) = answer(network.acm("blob", "list", "--json"))
    assert (applied["outcome"], stored["file_name"]) == ("success", "a.toml")
    assert answer(network.acm("unmatched", "--json")) == []
    assert network.acm("token", "create", "web-02").returncode == 12  # its role is operator
    untrusted = network.acm("commands", "--server", URL, "--token-file", "token")
    assert (untrusted.returncode, "not trusted" in untrusted.stderr) == (11, True)
    assert not list(network.desk.glob("*ledger*"))
