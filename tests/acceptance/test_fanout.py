"""One command for many agents, with real processes."""

import json
import subprocess
from typing import Any
from urllib.parse import urlsplit

from tests.acceptance.conftest import Site
from tests.support.waiting import wait_for


def test_operation_waits_for_an_agent_that_is_offline(site: Site) -> None:
    agents = {name: site.start_agent(name) for name in ("web-01", "web-02", "db-01")}
    for name in agents:
        site.wait_online(name)
    everyone = site.acm("send", "--all", "restart-agent", "--yes", "--wait", "40")
    assert everyone["counts"] == {"success": 3}
    for name in agents:
        wait_for(lambda name=name: site.queue(name) == [], "the deletion")
    agents["web-02"].stop()
    site.acm_text("group", "add", "edge", "web-01", "web-02")
    assert site.acm("group", "show", "edge") == {"name": "edge", "agents": ["web-01", "web-02"]}
    operation = site.acm("send", "--group", "edge", "get-agent-configuration")["operation"]["id"]
    wait_for(
        lambda: site.acm("operation", "show", operation)["counts"] == {"sent": 1, "success": 1},
        "the agent that is there to be done",
    )
    site.acm("operation", "show", operation, "--wait", "0.2", check=5)
    site.start_agent("web-02")
    shown = site.acm("operation", "show", operation, "--wait", "40")
    assert shown["counts"] == {"success": 2}
    pattern = site.acm("send", "web-*", "make-coffee", "--force", "--yes", "--wait", "40", check=4)
    assert {row["agent"]: row["result"]["code"] for row in pattern["commands"]} == {
        "web-01": "unsupported",
        "web-02": "unsupported",
    }
    view = site.acm_text("operation", "show", pattern["operation"]["id"])
    assert view.count("unsupported") == 2
    assert "does not support" in " ".join(view.split())


def test_form_f_sets_the_group_whose_configuration_is_fetched(site: Site) -> None:
    site.start_agent("web-01")
    site.wait_online("web-01")
    wanted = site.directory / "config.json"
    wanted.write_text('{"rate": 1}')
    site.acm_text("group", "add", "edge", "web-01")
    operation_id = site.acm_text("group", "configure", "edge", str(wanted)).strip()
    assert site.acm("operation", "show", operation_id, "--wait", "40")["counts"] == {"success": 1}
    site.acm_text("group", "remove", "edge", "web-01")
    publish(site, {"document_id": "f-1", "action": {"name": "set-group", "args": {"groups": ["edge"]}}})
    wait_for(
        lambda: site.acm("group", "list") == [{"name": "edge", "agents": ["web-01"]}], "the agent to tell its group"
    )
    site.send("web-01", "fetch-config")

    def applied() -> list[Any]:
        rows = site.acm("commands", "--agent", "web-01", "--state", "completed")
        return [row for row in rows if row["type"] == "apply-centralized-configuration"]

    wait_for(lambda: len(applied()) == 2, "the configuration to be sent again")
    assert [row["result"]["data"]["action"] for row in applied()] == ["unchanged", "applied"]
    assert {row["command"]["parameters"]["group"] for row in applied()} == {"edge"}


def publish(site: Site, command: dict[str, Any]) -> None:
    port = str(urlsplit(site.broker_url).port)
    argv = ["mosquitto_pub", "-p", port, "-q", "1", "-V", "5", "-t", "acm/web-01/command", "-s"]
    subprocess.run(argv, input=json.dumps(command).encode(), check=True, timeout=20)
