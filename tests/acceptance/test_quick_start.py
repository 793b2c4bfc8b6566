"""The README's quick start, and the same step by step in docs/operations.md, line by line.

Only the directories and the ports differ.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.support.machine import Machine
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

_DONE = "acm-test-line-done"
# The log line of each background program that the next line depends on.
_UP = {
    "broker.log": "Mosquitto listens at",
    "server.log": "mqtt_connected",
    "enroll-server.log": "enrolment_server_started",
    "web-01.log": "mqtt_connected",
}


def shell_lines(document: str, heading: str) -> list[str]:
    """Return the lines of the shell blocks below a heading, without what installs."""
    text = (ROOT / document).read_text()
    section = re.search(rf"^#+ {heading}$(.*?)^##", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    blocks = re.findall(r"^```sh\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert lines[0].startswith("make install")
    return [line for line in lines[1:] if not line.startswith("export PATH=")]


class Shell:
    """An interactive shell; its background processes end with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = Machine(directory / "machine")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env={**environment, "COLUMNS": "160", "XDG_CONFIG_HOME": str(directory / "config")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, line: str) -> str:
        """Run a line of the document, assert that it succeeds, and return its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"set -o pipefail; {self._here(line)}\necho {_DONE} $?\n")
        self.process.stdin.flush()
        printed = ""
        while not (last := self.process.stdout.readline()).startswith(_DONE):
            assert last, f"the shell ended at {line!r}: {printed}"
            printed += last
        assert last.split()[1] == "0", (line, printed)
        self._wait_for_program(line)
        return printed

    def _here(self, line: str) -> str:
        port, enroll_port = self.machine.port, self.machine.enroll_port
        line = line.replace("/srv/acm", str(self.directory)).replace(":8443", f":{enroll_port}")
        line = line.replace("/opt/acm/bin/", "").replace("acm broker config", f"acm broker config --port {port}")
        return line.replace("acm up", f"acm up --directory {self.machine.path} {' '.join(self.machine.ports)}")

    def _wait_for_program(self, line: str) -> None:
        started = re.search(r">/srv/acm/(\S+) 2>&1 &$", line)
        if started is not None:
            log = self.directory / started[1]
            wait_for(
                lambda: log.exists() and _UP[log.name] in log.read_text(), f"{log.name} to contain {_UP[log.name]!r}"
            )

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session, with all processes that it started
        self.process.communicate(timeout=20)
        self.machine.end()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.end()


def test_quick_start_is_three_commands_to_the_result_of_a_signed_command(shell: Shell) -> None:
    up, send = shell_lines("README.md", "Quick start")
    printed = shell.type(up)
    assert re.search(r"^  (acm send web-01 restart-agent --wait)$", printed, re.MULTILINE)
    shell.type(f"export ACM_CONFIG={shell.machine.settings}")  # the default directory needs none
    assert "success" in shell.type(send)
    (agent,) = json.loads(shell.type("acm agents --json"))
    assert (agent["name"], agent["state"], agent["status"]["accepts_unsigned"]) == ("web-01", "online", False)
    state = shell.machine.path / "agents" / "web-01"
    assert json.loads(shell.type(f"acm-agent enrolment --state {state} --json"))["broker"].startswith("mqtts://")

    shell.type(f"acm down --directory {shell.machine.path}")
    assert shell.machine.processes() == []
    shell.type(up)  # the agent is enrolled already
    assert "success" in shell.type(send)


def test_what_acm_up_says_is_next_leads_to_a_second_agent(shell: Shell) -> None:
    printed = shell.type("acm up --wait-ready")
    config, enroll, run, send, add, agents = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    for line in (config, enroll, f"{run.removesuffix('&')} >web-01.log 2>&1 &"):
        shell.type(line)
    assert "success" in shell.type(send)
    shell.type(add)
    assert "web-01" in shell.type(agents)


def test_step_by_step_ends_in_a_signed_installation_with_tls(shell: Shell) -> None:
    *lines, end = shell_lines("docs/operations.md", "Step by step")
    shell.type(f"export ACM_ENROLL_LISTEN=127.0.0.1:{shell.machine.enroll_port}")
    printed = {line: shell.type(line) for line in lines}
    assert "success" in printed["acm send web-01 restart-agent --wait"]
    assert re.search(r"web-01 +online", printed["acm agents"])
    assert "The broker refuses what an agent publishes on topics of the server" in printed["acm doctor"]

    (agent,) = json.loads(shell.type("acm agents --json"))
    assert (agent["name"], agent["state"], agent["status"]["accepts_unsigned"]) == ("web-01", "online", False)
    assert json.loads(shell.type("acm-agent enrolment --state /srv/acm/web-01 --json"))["broker"].startswith("mqtts://")

    assert end == "kill $(jobs -p)"
    shell.type(end)
    shell.type("wait")
