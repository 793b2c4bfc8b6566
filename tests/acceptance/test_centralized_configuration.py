"""A centralized configuration through real processes: applied, refused, rolled back, and whatever dies on the way."""

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import ROOT, Program, Site
from tests.acceptance.test_local_machine import AS_A_USER
from tests.support.https_server import HttpsServer
from tests.support.unprivileged import directory_of_nobody
from tests.support.waiting import wait_for

TYPE = "apply-centralized-configuration"
CODES = {"applied": None, "not_applied": "interrupted", "rolled_back": "failed"}


class Managed:
    """An agent that manages the service of tests/support/reloading_service.sh."""

    def __init__(self, site: Site, **download: str) -> None:
        self.site = site
        self.said = site.directory / "said"
        self.root = site.state("web-01") / "configuration"
        self.config = site.directory / "agent.toml"
        service = ["/bin/sh", str(ROOT / "tests" / "support" / "reloading_service.sh"), str(self.file), str(self.said)]
        self.config.write_text(
            f"[download]\n{''.join(f'{name} = {json.dumps(value)}' for name, value in download.items())}\n"
            f'[service]\nkind = "child"\nargv = {json.dumps(service)}\n'
            '[configuration]\nfile = "sensor.toml"\nreload = "signal"\ngrace_s = 1.5\n'
            """check = ["/bin/sh", "-c", '! grep -n refuse "$0"', "{file}"]\n"""
            f'health_check = ["/usr/bin/cmp", "{{file}}", {json.dumps(str(self.said))}]\n'
        )

    @property
    def file(self) -> Path:
        return self.root / "current" / "sensor.toml"

    def start_agent(self, crash_at: str = "") -> Program:
        """Start the agent, to be killed at a step if one is given, and wait until its service runs."""
        loads, config = len(self.loads()), ("--config", str(self.config))
        if crash_at:
            agent = self.site.start_crashing_agent("web-01", f"{TYPE}.{crash_at}", *config)
        else:
            agent = self.site.start_agent("web-01", *config)
        wait_for(lambda: len(self.loads()) > loads, "the service to run")
        return agent

    def send(self, command_type: str, **parameters: Any) -> str:
        return self.site.enqueue("web-01", command_type, parameters)

    def result(self, command_id: str) -> Any:
        return self.site.result(command_id)

    def apply(self, **parameters: Any) -> Any:
        return self.result(self.send(TYPE, **parameters))

    def show(self, **parameters: Any) -> Any:
        return self.result(self.send("get-agent-configuration", **parameters))["data"]

    def runs_with(self, text: str) -> None:
        wait_for(lambda: self.said.read_text() == text, f"the service to run with {text!r}")
        assert self.file.read_text() == text

    def loads(self) -> list[str]:
        log = Path(f"{self.said}.log")
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def managed(site: Site) -> Managed:
    managed = Managed(site)
    managed.start_agent()
    return managed


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_good_ones_are_applied_and_bad_ones_leave_the_service_as_it_was(managed: Managed, tmp_path: Path) -> None:
    good = "interval = 1\n"
    (tmp_path / "sensor.toml").write_text(good)
    content = f"content=@{tmp_path}/sensor.toml"
    result = managed.site.sent("web-01", TYPE, content, "group=web", "--allow-unknown", "--wait", "40")["result"]
    assert (result["outcome"], result["data"]["action"]) == ("success", "applied")
    assert result["data"]["active"] == {
        "name": f"000001-{sha256(good)[:12]}",
        "sha256": sha256(good),
        "files": 1,
        "group": "web",
    }
    assert result["data"]["diff"]["lines_added"] == 1
    applied = result["data"]["active"]
    managed.runs_with(good)
    loads = managed.loads()
    again = managed.apply(content=good)
    assert (again["outcome"], again["data"]["action"], managed.loads()) == ("success", "unchanged", loads)

    for text, said, action in (
        ("interval =", "sensor.toml is not valid TOML", "not_applied"),
        ("refuse = true", "The check /bin/sh rejects the files", "not_applied"),
        ("interval = 2 # deaf", "The health check /usr/bin/cmp did not succeed within 1.5 s", "rolled_back"),
        ("interval = 3 # die", "The service died after the reload", "rolled_back"),
    ):
        result = managed.apply(content=text)
        assert (result["outcome"], result["code"], result["data"]["action"]) == ("error", "failed", action)
        assert said in result["message"]
        assert result["data"]["active"]["sha256"] == sha256(good)
        managed.runs_with(good)

    shown = managed.show(section="centralized")
    assert shown["applied"] == applied
    assert json.loads(shown["files"][0]["content"]) == {"interval": 1}


def test_each_value_is_shown_with_its_source(managed: Managed) -> None:
    shown = managed.show(effective=True)
    assert shown["configuration"]["configuration"]["grace_s"] == 1.5
    sources = shown["sources"]
    assert sources["configuration.grace_s"] == f"file {managed.config}"
    assert sources["configuration.keep"] == sources["kill_grace_s"] == "default"
    assert sources["agent"] == sources["state"] == "flag"
    assert "applied" not in shown


def test_an_archive_over_https(site: Site, tmp_path: Path) -> None:
    (tmp_path / "https").mkdir()
    with HttpsServer.running(tmp_path / "https") as server:
        managed = Managed(site, ca_file=str(server.ca_file))
        managed.start_agent()
        files = {"sensor.toml": b"interval = 1\n", "conf.d/more.yaml": b"a: [1, 2]\n"}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        content = packed.getvalue()
        url = server.serve("/web.tar.gz", content)
        wanted = {"url": url, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        wrong = managed.apply(artifact=wanted | {"sha256": "0" * 64})
        assert (wrong["code"], wrong["data"]["action"]) == ("failed", "not_applied")
        assert "differs from the one in the command" in wrong["message"]
        result = managed.apply(artifact=wanted)
        assert (result["outcome"], result["data"]["active"]["files"]) == ("success", 2)
        assert result["data"]["active"]["sha256"] == wanted["sha256"]
        assert {name: (managed.root / "current" / name).read_bytes() for name in files} == files
        managed.runs_with("interval = 1\n")


def test_what_others_made_in_the_configuration_stops_nothing_and_is_named_in_the_status(site: Site) -> None:
    with directory_of_nobody() as home:
        root, config = home / "state" / "configuration", home / "agent.toml"
        config.write_text("[configuration]\nkeep = 1\n")
        agent = [*AS_A_USER, sys.executable, "-m", "consumer", "run", "--agent", "web-01", "--broker", site.broker_url]
        site._start("web-01", [*agent, "--config", str(config), "--state", str(home / "state")])

        def applied(**parameters: Any) -> bool:
            return bool(site.result(site.enqueue("web-01", TYPE, parameters))["outcome"] == "success")

        assert applied(content="first")
        private = root.resolve() / os.readlink(root / "current") / "cache"
        (private / "deep").mkdir(parents=True)
        private.chmod(0o700)
        for number in range(3):
            assert applied(content=str(number))
        assert not applied(artifact=packed(home / "deep.tar.gz", "d/" * 1200 + "x.conf"))
        assert applied(content="last")
        assert len(list((root / "generations").glob("*/"))) == 3

        def last_error() -> Any:
            return site.wait_online("web-01").get("last_error")

        wait_for(lambda: f"{private}/deep: Permission denied" in str(last_error()), "the status to name it")
        shutil.rmtree(private.parent)
        wait_for(lambda: last_error() is None, "the status to forget it")


def packed(path: Path, name: str) -> dict[str, Any]:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    content = path.read_bytes()
    return {"url": path.as_uri(), "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_kill_9_at_each_step_leaves_the_old_or_the_new_one_and_the_result_is_true(managed: Managed) -> None:
    active = "interval = 0\n"
    assert managed.apply(content=active)["outcome"] == "success"
    managed.site.programs[-1].stop()
    # Each agent settles what the one before it left, and is killed at a step that the settling does not come to.
    deaths = [
        ("swapped", "applied"),
        ("downloaded", "not_applied"),
        ("reloaded", "applied"),
        ("staged", "not_applied"),
        ("checked", "applied"),
        ("validated", "not_applied"),
        ("rolled_back", "rolled_back"),
    ]
    agent = managed.start_agent(crash_at=deaths[0][0])
    for number, (_, action) in enumerate(deaths, start=1):
        wanted = f"interval = {number}{' # die' if action == 'rolled_back' else ''}\n"
        command_id = managed.send(TYPE, content=wanted)
        assert agent.process.wait(30) == -signal.SIGKILL
        assert managed.file.read_text() in (active, wanted)
        agent = managed.start_agent(crash_at=deaths[number][0] if number < len(deaths) else "")
        result = managed.result(command_id)
        active = wanted if action == "applied" else active
        assert (result.get("code"), result["data"]["action"]) == (CODES[action], action)
        assert result["data"]["active"]["sha256"] == sha256(active)
        managed.runs_with(active)
