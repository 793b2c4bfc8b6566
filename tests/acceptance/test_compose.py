"""The images and docker/compose.yaml: commands to agents in containers, whatever container is killed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import ROOT
from tests.support.brokers import docker, docker_answers, image_lock
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.own_ledger, pytest.mark.timeout(600)]


def compose_program() -> list[str]:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.fail("Docker runs but Compose is missing: scripts/docker.sh installs it on Debian")


class Project:
    """One run of compose.yaml under a name of its own."""

    def __init__(self) -> None:
        self.name = f"acm-test-{uuid.uuid4().hex[:8]}"
        self._compose = [*compose_program(), "-p", self.name, "-f", str(ROOT / "docker" / "compose.yaml")]
        self._containers: dict[str, str] = {}

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        done = subprocess.run([*self._compose, *arguments], capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"{arguments}: {done.stderr[-3000:]}"
        return done.stdout

    def container(self, service: str) -> str:
        if service not in self._containers:  # Compose takes a second to say it, and a killed one keeps its id
            self._containers[service] = self.compose("ps", "-q", service).strip()
        return self._containers[service]

    def acm(self, *arguments: str, check: bool = True) -> Any:
        argv = ["docker", "exec", self.container("server"), "acm", *arguments, "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def online(self) -> dict[str, str]:
        rows = self.acm("agents", check=False) or []
        return {row["name"]: row["status"]["incarnation"] for row in rows if row["state"] == "online"}

    def outcomes(self, agent: str, command_ids: list[str]) -> list[str]:
        """Wait until all are completed, and return what came of each."""

        def all_completed() -> Any:
            rows = {row["id"]: row for row in self.acm("commands", "--agent", agent)}
            sent = [rows[command_id] for command_id in command_ids]
            return all(row["state"] == "completed" for row in sent) and sent

        return [row["result"]["outcome"] for row in wait_for(all_completed, "the results", timeout_s=90)]

    def is_healthy(self, service: str) -> bool:
        """Run the health check of a service once."""
        container = self.container(service)
        _, *check = json.loads(docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", container))
        return subprocess.run(["docker", "exec", container, *check], capture_output=True, timeout=60).returncode == 0

    def queue(self, agent: str) -> Any:
        return json.loads(docker("exec", self.container(agent), "acm-agent", "queue", "--json"))


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    if not docker_answers():
        assert os.environ.get("ACM_REQUIRE_DOCKER") != "1", "no Docker engine answers: run scripts/docker.sh"
        pytest.skip("the images need a Docker engine; scripts/docker.sh installs one")
    project = Project()
    with image_lock():
        venv = Path(sys.executable).parent.parent
        subprocess.run(["bash", "scripts/wheels.sh", str(venv)], cwd=ROOT, check=True, timeout=300)
        project.compose("build", timeout_s=500)
    try:
        project.compose("up", "--detach")
        wait_for(lambda: set(project.online()) == {"web-01", "web-02"}, "both agents to be online", timeout_s=60)
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")
        for service in ("mosquitto", "server", "web-01", "web-02"):
            subprocess.run(["docker", "rmi", f"{project.name}_{service}"], capture_output=True)
            subprocess.run(["docker", "rmi", f"{project.name}-{service}"], capture_output=True)


def test_each_agent_runs_its_own_commands(project: Project) -> None:
    before = project.online()
    for agent in ("web-01", "web-02"):
        result = project.acm("send", agent, "restart-agent", "--wait")["commands"][0]["result"]
        assert (result["agent"], result["outcome"]) == (agent, "success")
        assert result["incarnation"] != before[agent]
        wait_for(lambda agent=agent: project.queue(agent) == [], "the deletion")


def wait_healthy(container: str) -> None:
    status = ("inspect", "--format", "{{.State.Health.Status}}", container)
    wait_for(lambda: docker(*status).strip() == "healthy", f"{container} to be healthy", timeout_s=60)


def test_no_process_of_ours_is_root_and_all_become_healthy(project: Project) -> None:
    for service in ("mosquitto", "server", "web-01", "web-02"):
        assert docker("exec", project.container(service), "id", "-u").strip() != "0"
        wait_healthy(project.container(service))


def test_enrolment_server_in_a_container_becomes_healthy(project: Project) -> None:
    """With the check of the document."""
    document = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```yaml\n(healthcheck:\n.*?)```", document, re.DOTALL)
    _, *check = yaml.safe_load(snippet)["healthcheck"]["test"]
    image = docker("inspect", "--format", "{{.Image}}", project.container("server")).strip()
    begin = "acm ca init && acm ca server-certificate 127.0.0.1 && exec acm enroll-server --broker mqtts://127.0.0.1"
    name = f"{project.name}-enrolment"
    health = ("--health-interval", "1s", "--health-start-period", "60s", "--health-cmd", shlex.join(check))
    docker("run", "--detach", "--name", name, "--env", "ACM_CA=/var/lib/acm/ca", *health, image, "sh", "-c", begin)
    try:
        wait_healthy(name)
    finally:
        docker("rm", "--force", "--volumes", name)


@pytest.mark.parametrize("victim", ["mosquitto", "web-01", "server"])
def test_a_killed_container_loses_nothing(project: Project, victim: str) -> None:
    container = project.container(victim)
    sent = [project.acm("send", "web-01", "get-agent-configuration")["commands"][0]["id"] for _ in range(3)]
    docker("kill", "--signal", "KILL", container)
    if victim == "mosquitto":
        wait_for(lambda: not project.is_healthy("server"), "the server to be unhealthy")
    if victim != "server":
        sent += [project.acm("send", "web-01", "get-agent-configuration")["commands"][0]["id"] for _ in range(3)]
    docker("start", container)
    assert project.outcomes("web-01", sent) == ["success"] * len(sent)
    wait_for(lambda: project.queue("web-01") == [], "every command to be deleted")
