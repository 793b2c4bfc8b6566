"""restart-agent, start-agent and stop-agent on a child process, also if the agent dies."""

import json
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Site
from tests.support.waiting import wait_for

STUBBORN = (
    "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
)


@pytest.fixture
def managing(site: Site, tmp_path: Path) -> tuple[str, ...]:
    """The arguments of an agent whose service ignores TERM, and creates the file `ready` once it does."""
    argv = json.dumps([sys.executable, "-c", STUBBORN, str(tmp_path / "ready")])
    path = tmp_path / "agent.toml"
    path.write_text(f'[service]\nkind = "child"\nargv = {argv}\nstop_grace_s = 0.5\nsettle_s = 0.2\n')
    return ("--config", str(path))


def await_ready(site: Site) -> None:
    wait_for((site.directory / "ready").exists, "the service to ignore TERM")


def await_running(site: Site) -> None:
    wait_for(lambda: site.queue("web-01") == ["processing"], "the command to run")


def test_service_that_ignores_term_is_killed_and_reported(site: Site, managing: tuple[str, ...]) -> None:
    site.start_agent("web-01", *managing)
    site.wait_online("web-01")
    await_ready(site)
    restarted = site.sent("web-01", "restart-agent", "delay_s=0.2", "--wait", "30")["result"]
    assert "The old one did not end on TERM within 0.5 s and was killed." in restarted["message"]
    data = restarted["data"]
    assert (data["killed"], data["stop_grace_s"], data["service"]) == (True, 0.5, "child")
    assert None is not data["previous_incarnation"] != data["incarnation"] is not None
    stopped = site.sent("web-01", "stop-agent", "--wait", "30")["result"]
    assert (stopped["outcome"], stopped["data"]["service"]) == ("success", "child")
    started = site.sent("web-01", "start-agent", "--wait", "30")["result"]
    assert started["data"]["incarnation"] != data["incarnation"]


def test_delay_beyond_the_timeout_is_rejected_and_a_delay_cancelled(site: Site) -> None:
    site.start_agent("web-01")
    before = site.wait_online("web-01")["incarnation"]
    long = ("restart-agent", "delay_s=30", "--timeout", "20s")
    refused = site.sent("web-01", *long, "--wait", "30", check=4)["result"]
    assert (refused["code"], "30" in refused["message"], "20 s" in refused["message"]) == ("invalid", True, True)
    waiting = site.send("web-01", "restart-agent", "delay_s=50")
    await_running(site)
    site.acm("cancel", waiting)
    cancelled = site.result(waiting)
    assert (cancelled["code"], cancelled["incarnation"]) == ("cancelled", before)


def test_restart_killed_during_its_delay_is_interrupted(site: Site, managing: tuple[str, ...]) -> None:
    agent = site.start_agent("web-01", *managing)
    site.wait_online("web-01")
    command_id = site.send("web-01", "restart-agent", "delay_s=50")
    await_running(site)
    agent.kill()
    site.start_agent("web-01", *managing)
    result = site.result(command_id)
    assert (result["code"], "before this command restarted" in result["message"]) == ("interrupted", True)


def test_restart_interrupted_by_kill_9_succeeds_if_the_service_restarted(site: Site, managing: tuple[str, ...]) -> None:
    agent = site.start_crashing_agent("web-01", "restart-agent.begun", *managing)
    site.wait_online("web-01")
    await_ready(site)
    command_id = site.send("web-01", "restart-agent")
    agent.process.wait(20)
    site.start_agent("web-01", *managing)
    result = site.result(command_id)
    assert (result["outcome"], "though the agent died" in result["message"]) == ("success", True)
    assert None is not result["data"]["previous_incarnation"] != result["data"]["incarnation"] is not None
