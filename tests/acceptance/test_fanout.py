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
    group = site.acm("send", "--group", "edge", "get-agent-configuration", "--wait", "4", check=5)
    assert group["counts"]["success"] == 1
    assert {row["agent"]: row["state"] for row in group["commands"]}["web-02"] in ("queued", "sent")
    site.start_agent("web-02")
    shown = site.acm("operation", "show", group["operation"]["id"], "--wait", "40")
    assert shown["counts"] == {"success": 2}
    pattern = site.acm("send", "web-*", "make-coffee", "--wait", "40", check=4)
    assert {row["agent"]: row["result"]["code"] for row in pattern["commands"]} == {
        "web-01": "unsupported",
        "web-02": "unsupported",
    }
    view = site.acm_text("operation", "show", pattern["operation"]["id"])
    assert "2 error" in view
    assert "does not support" in " ".join(view.split())
