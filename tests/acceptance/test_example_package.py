"""examples/rotate-logs as it is installed beside an agent: its entry points alone make its command type known."""

import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from broker.contract.commands import CommandType
from tests.acceptance.conftest import ROOT, Site
from tests.support.brokers import TestBroker
from tests.support.waiting import wait_for

EXAMPLE = ROOT / "examples" / "rotate-logs"
GROUPS = ("agent_command_manager.handlers", "agent_command_manager.command_types")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory for PYTHONPATH with what an installer makes of the example: its entry points in a *.dist-info."""
    place = tmp_path / "site-packages"
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    about = place / f"acm_rotate_logs-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (about / "entry_points.txt").write_text("\n".join(_sections(project["entry-points"])))
    (place / "rotate_logs").symlink_to(EXAMPLE / "src" / "rotate_logs")
    return place


def _sections(groups: dict[str, dict[str, str]]) -> list[str]:
    return [
        line for group, names in groups.items() for line in (f"[{group}]", *(f"{n} = {v}" for n, v in names.items()))
    ]


def acm_agent(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "consumer", *arguments]
    environment = {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_an_installed_package_brings_a_command_type(site: Site, installed: Path) -> None:
    site.start_agent("web-01", PYTHONPATH=str(installed))
    assert "rotate-logs" in site.wait_online("web-01")["supported_types"]
    log = site.directory / "sensor.log"
    log.write_text("21.5\n")
    result = site.sent("web-01", "rotate-logs", f"path={log}", "keep=3", "--wait", "30")["result"]
    assert (result["outcome"], result["message"]) == ("success", f"{log} was rotated.")
    assert Path(result["data"]["rotated"]).read_text() == "21.5\n"
    assert log.read_text() == ""
    wrong = site.sent("web-01", "rotate-logs", f"path={log}", "keep=0", "--wait", "30", check=4)["result"]
    assert (wrong["code"], "keep" in wrong["message"]) == ("invalid", True)


def test_its_command_type_stands_under_both_groups(installed: Path) -> None:
    (package,) = distributions(path=[str(installed)])
    loaded: dict[str, Any] = {
        entry.group: entry.load() for entry in package.entry_points if entry.name == "rotate-logs"
    }
    assert set(loaded) == set(GROUPS)
    kind = loaded["agent_command_manager.command_types"]
    assert isinstance(kind, CommandType)
    assert loaded["agent_command_manager.handlers"].parameters is kind.parameters


def test_a_broken_plug_in_leaves_the_agent_reachable_and_is_said(site: Site, installed: Path) -> None:
    (installed / "rotate_logs").unlink()
    site.start_agent("web-01", PYTHONPATH=str(installed))
    status = site.wait_online("web-01")
    assert status["last_error"].startswith("The plug-in rotate-logs of acm-rotate-logs 1.0 is not used: ")
    assert "rotate-logs" not in status["supported_types"]
    assert site.sent("web-01", "restart-agent", "--wait", "30")["result"]["outcome"] == "success"


def test_check_config_names_the_plug_ins_and_refuses_a_broken_one(installed: Path, tmp_path: Path) -> None:
    flags = ("check-config", "--agent", "web-01", "--broker", "mqtt://127.0.0.1", "--state", str(tmp_path))
    good = acm_agent(installed, *flags)
    said = ["The configuration of web-01 is valid.", "A plug-in adds rotate-logs."]
    assert (good.returncode, good.stdout.splitlines(), good.stderr.count("\n")) == (0, said, 1), good.stderr
    assert "web-01 is not enrolled" in good.stderr
    (installed / "rotate_logs").unlink()
    bad = acm_agent(installed, *flags)
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (1, "", 1), bad.stderr
    assert bad.stderr.startswith("acm-agent: The plug-in rotate-logs of acm-rotate-logs 1.0 is not used: ")


def test_a_program_with_an_agent_inside_is_started_stopped_and_restarted(site: Site) -> None:
    agent = site.start_agent("web-01", module="examples.embedded")
    assert "read-sensor" in site.wait_online("web-01")["supported_types"]
    read = site.sent("web-01", "read-sensor", "sensor=roof", "--wait", "30")["result"]
    assert read["data"] == {"celsius": 21.5}
    restarted = site.sent("web-01", "restart-agent", "--wait", "30")["result"]["data"]
    assert restarted["service"] == "callbacks"
    assert None is not restarted["previous_incarnation"] != restarted["incarnation"]
    assert site.sent("web-01", "stop-agent", "--wait", "30")["result"]["outcome"] == "success"
    assert (site.state("web-01") / "measuring-stopped").exists()
    assert agent.stop() == 0
    wait_for(lambda: site.acm("agents")[0]["state"] == "offline", "the agent's goodbye")


def test_program_with_a_server_inside_sends_a_command_and_prints_its_result(broker: TestBroker, tmp_path: Path) -> None:
    site = Site(broker.url, tmp_path)
    site.start_agent("web-01")
    argv = [sys.executable, "-m", "examples.embedded_server", broker.url, site.ledger, "web-01", "restart-agent"]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=90)
    finally:
        site.stop()
    assert done.stdout.splitlines()[-1].startswith("success: "), (done.stdout, done.stderr)
