"""The README's quick start, line by line; only its directory and its ports differ."""

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
from tests.support.brokers import free_port
from tests.support.waiting import wait_for

_DONE = "acm-test-line-done"
# The log line of each background program that the next line depends on.
_UP = {
    "broker.log": "Mosquitto listens at",
    "server.log": "mqtt_connected",
    "enroll-server.log": "enrolment_server_started",
    "web-01.log": "mqtt_connected",
}


def quick_start() -> list[str]:
    """Return the lines of the shell blocks, without those of the installation."""
    text = (ROOT / "README.md").read_text()
    section = re.search(r"^## Quick start$(.*?)^### ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    installation, *blocks = re.findall(r"^```sh\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert "make install PREFIX=" in installation
    return [line for block in blocks for line in block.splitlines()]


class Shell:
    """An interactive shell; its background processes end with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ports = {"broker": free_port(), "enrolment": free_port()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        listen = f"127.0.0.1:{self._ports['enrolment']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "ACM_ENROLL_LISTEN": listen}
        self.process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env={**environment, "COLUMNS": "160"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, line: str) -> str:
        """Run a line of the README, assert that it succeeds, and return its output."""
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
        line = line.replace("/srv/acm", str(self.directory)).replace(":8443", f":{self._ports['enrolment']}")
        return line.replace("acm broker config", f"acm broker config --port {self._ports['broker']}")

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


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.end()


def test_quick_start_ends_in_a_signed_installation_with_tls(shell: Shell) -> None:
    *lines, end = quick_start()
    printed = {line: shell.type(line) for line in lines}
    assert "success" in printed["acm send web-01 restart-agent --wait"]
    assert re.search(r"web-01 +online", printed["acm agents"])

    (agent,) = json.loads(shell.type("acm agents --json"))
    assert (agent["agent"], agent["online"], agent["accepts_unsigned"]) == ("web-01", True, False)
    assert json.loads(shell.type("acm-agent enrolment --state /srv/acm/web-01 --json"))["broker"].startswith("mqtts://")

    assert end == "kill $(jobs -p)"
    shell.type(end)
    shell.type("wait")
