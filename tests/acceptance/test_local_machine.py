"""What another user or a child process can read of a running agent, by /proc."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.conftest import Program, Site
from tests.support.waiting import wait_for

# A user without rights, but to read the files of Python and of the project wherever they are.
AS_A_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
AS_A_USER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
URL = "mqtt://me:hush@127.0.0.1:1"


def environ(pid: int, by: list[str] | None = None) -> "subprocess.CompletedProcess[str]":
    argv = [*(by or []), "cat", f"/proc/{pid}/environ"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)


@dataclass(frozen=True)
class Lonely:
    """An agent of an unprivileged user, with a password and a service, and no broker."""

    program: Program
    service_trace: Path


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Lonely]:
    assert os.geteuid() == 0, "run this test as root: it starts an agent as another user"
    with tempfile.TemporaryDirectory(prefix="acm-test-") as home:  # pytest's own directories are closed to others
        os.chown(home, 65534, 65534)
        config, state = Path(home, "agent.toml"), Path(home, "state")
        config.write_text('[service]\nkind = "child"\nargv = ["/bin/sleep", "600"]\n')
        argv = [*AS_A_USER, sys.executable, "-m", "consumer", "run", "--agent", "web-01", "--config", str(config)]
        environment = {"ACM_BROKER": URL, "GIVEN": "to the service"}
        program = Program([*argv, "--state", str(state), "--accept-unsigned"], tmp_path / "log", **environment)
        yield Lonely(program, state / "service.pid")
        program.stop()


def test_neither_the_service_nor_another_process_sees_a_password(lonely: Lonely) -> None:
    trace = lonely.service_trace
    service = int(wait_for(lambda: trace.exists() and trace.read_text().split(), "the service")[0])
    wait_for(lambda: "sleep" in Path(f"/proc/{service}/cmdline").read_text(), "the service to run")
    of_service = environ(service, AS_A_USER).stdout.split("\0")
    assert "GIVEN=to the service" in of_service
    assert not [entry for entry in of_service if entry.startswith("ACM_")]
    agent = lonely.program.process.pid
    assert "hush" in environ(agent).stdout  # root sees all
    refused = environ(agent, AS_A_USER)
    assert (refused.stdout, "Permission denied" in refused.stderr) == ("", True)
    assert "hush" not in Path(f"/proc/{agent}/cmdline").read_text()
    assert "hush" not in lonely.program.log.read_text()


def test_a_restart_in_place_keeps_what_was_taken_out_of_the_environment(site: Site) -> None:
    argv = [sys.executable, "-m", "consumer", "run", "--agent", "web-01", "--state", str(site.state("web-01"))]
    with_password = site.broker_url.replace("mqtt://", "mqtt://me:hush@")
    agent = site._start("web-01", argv, ACM_BROKER=with_password)
    before = site.wait_online("web-01")["incarnation"]
    assert site.result(site.send("web-01", "restart-agent"))["outcome"] == "success"
    wait_for(lambda: site.wait_online("web-01")["incarnation"] != before, "the new incarnation")
    assert agent.process.poll() is None
    shown = site.sent("web-01", "get-agent-configuration", "section=broker", "--wait", "40")
    assert "hush" not in str(shown)
