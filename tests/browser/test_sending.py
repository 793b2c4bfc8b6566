"""An operator sends a command: fills in, checks, confirms, follows it, and cancels."""

import re

import pytest
from playwright.sync_api import Page, expect

from broker.fleet.models import Role
from tests.browser.conftest import NARROW, WIDE, LogIn
from tests.support.chromium import violations
from tests.support.staged_fleet import StagedFleet


@pytest.fixture
def page(log_in: LogIn) -> Page:
    return log_in(Role.OPERATOR, name="olga")


def test_command_is_checked_confirmed_and_sent_once(page: Page, fleet: StagedFleet) -> None:
    page.goto("/agents/web-01")
    page.get_by_role("link", name="Send a command to web-01").click()
    page.get_by_label("Command type").select_option("restart-agent")
    expect(page.get_by_label("Names of agents")).to_have_value("web-01")
    page.get_by_label("delay_s").fill("2.5")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Send restart-agent to 1 agent?")
    before = len(fleet.ledger.commands("web-01"))
    page.get_by_role("button", name="Send to 1 agent").dblclick()
    expect(page).to_have_url(re.compile("/commands/[^/]+$"))
    (sent,) = fleet.ledger.commands("web-01", limit=None)[: len(fleet.ledger.commands("web-01", limit=None)) - before]
    assert (sent.command.parameters, sent.command.origin.name) == ({"delay_s": 2.5}, "olga")


def test_what_cannot_be_sent_is_said_before(page: Page) -> None:
    page.goto("/send?type=restart-agent&target=agents&agents=web-01,nosuch")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("alert")).to_contain_text("nosuch")
    page.get_by_label("Names of agents").fill("web-01")
    page.get_by_label("delay_s").fill("-1")
    page.get_by_role("button", name="Check").click()
    assert page.get_by_label("delay_s").evaluate("it => it.validity.rangeUnderflow")
    assert page.url.endswith("/send/check")


def test_operation_is_followed_and_cancelled(page: Page, fleet: StagedFleet) -> None:
    page.goto("/send?type=stop-agent&target=group&group=web")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Send to 6 agents").click()
    page.wait_for_url("**/operations/*")
    expect(page.get_by_role("heading", name="0 of 6 ended")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Live")
    row = next(it for it in fleet.ledger.commands("web-02") if it.state == "queued")
    fleet.ran("web-02", row.command.id)
    expect(page.get_by_role("heading", name="1 of 6 ended")).to_be_visible()
    page.get_by_text("Cancel 5 open commands …").click()
    page.get_by_role("button", name="Cancel 5 open commands").click()
    expect(page.get_by_text("cancel requested").first).to_be_visible()


def test_command_is_abandoned_and_sent_again(page: Page, fleet: StagedFleet) -> None:
    command_id = fleet.add("edge-07", "start-agent")
    page.goto(f"/commands/{command_id}")
    page.get_by_role("link", name="Abandon this command …").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Abandon 1 open command?")
    assert violations(page) == []
    page.get_by_role("button", name="Abandon 1 open command").dblclick()
    expect(page).to_have_url(re.compile(f"/commands/{command_id}$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("interrupted")
    page.get_by_role("link", name="Send it again …").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Send start-agent to 1 agent again?")
    assert violations(page) == []
    page.get_by_role("button", name="Send again to 1 agent").dblclick()
    expect(page).to_have_url(re.compile(f"/commands/(?!{command_id})[^/]+$"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("start-agent to edge-07")
    started = [it for it in fleet.ledger.commands("edge-07", limit=None) if it.command.type == "start-agent"]
    assert len(started) == 2


def test_viewer_is_offered_nothing_to_change(log_in: LogIn, fleet: StagedFleet) -> None:
    page = log_in(Role.VIEWER, name="vera")
    page.goto(f"/commands/{fleet.commands['waiting']}")
    expect(page.get_by_text("Cancel this command")).to_have_count(0)
    expect(page.get_by_role("link", name="Send")).to_have_count(0)
    assert (page.goto("/send")).status == 403  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_forms_are_accessible_and_fit(log_in: LogIn, fleet: StagedFleet, size: dict[str, int]) -> None:
    page = log_in(viewport=size)
    paths = [f"/send?type={it}" for it in ("restart-agent", "enroll-agent", "execute-active-response", "upgrade-agent")]
    for path in ["/send", *paths, "/operations", f"/operations/{fleet.operation}"]:
        page.goto(path)
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
