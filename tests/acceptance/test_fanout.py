"""One command for many agents, with real processes."""

from tests.acceptance.conftest import Site
from tests.waiting import wait_for


def test_a_group_a_pattern_and_one_agent_that_is_away(site: Site) -> None:
    agents = {name: site.start_agent(name) for name in ("web-01", "web-02", "db-01")}
    for name in agents:
        site.wait_online(name)
    everyone = site.acm("send", "--all", "restart-agent", "--wait", "40")
    assert everyone["counts"] == {"success": 3}
    for name in agents:
        wait_for(lambda name=name: site.queue(name) == [], "the deletion")
    agents["web-02"].stop()
    site.acm_text("group", "add", "edge", "web-01", "web-02")
    assert site.acm("group", "show", "edge") == ["web-01", "web-02"]
    operation = site.acm("send", "--group", "edge", "get-agent-configuration")["operation"]["id"]
    wait_for(
        lambda: site.acm("operation", "show", operation)["counts"] == {"sent": 1, "success": 1},
        "the agent that is there to be done",
    )
    site.acm("operation", "show", operation, "--wait", "0.2", check=5)
    site.start_agent("web-02")
    shown = site.acm("operation", "show", operation, "--wait", "40")
    assert shown["counts"] == {"success": 2}
    pattern = site.acm("send", "web-*", "make-coffee", "--wait", "40", check=4)
    assert {row["agent"]: row["result"]["code"] for row in pattern["commands"]} == {
        "web-01": "unsupported",
        "web-02": "unsupported",
    }
    view = site.acm_text("operation", "show", pattern["operation"]["id"])
    assert "2 error" in view
    assert "does not support" in " ".join(view.split())
