"""A page stays true without being loaded again: by events, after a lost connection, after a sleep of the machine."""

import re
from contextlib import ExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from broker.enrolment.tokens import TokenStore, new_enrolment_token
from tests.browser.conftest import LogIn
from tests.support.api import running_api
from tests.support.staged_fleet import StagedFleet


def follow(page: Page, path: str) -> None:
    """Open a page, and wait until it follows events; `is_loaded` would be gone if it was loaded again."""
    page.goto(path)
    expect(page.locator("#live")).to_have_text("Live")
    page.evaluate("window.isLoaded = true")


def is_same_document(page: Page) -> bool:
    return page.evaluate("window.isLoaded === true") is True


def test_result_of_a_command_appears(page: Page, fleet: StagedFleet) -> None:
    command_id = fleet.add("web-02", "restart-agent")
    follow(page, f"/commands/{command_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("queued")
    fleet.ran("web-02", command_id)
    expect(page.get_by_role("heading", level=1)).to_contain_text("success")
    expect(page.locator(".hops .done")).to_have_count(8)
    assert is_same_document(page)


def test_figures_of_the_fleet_follow(page: Page, fleet: StagedFleet) -> None:
    follow(page, "/")
    expect(page.get_by_role("link", name="2 offline")).to_be_visible()
    fleet.say("web-06", online=False)
    expect(page.get_by_role("link", name="3 offline")).to_be_visible()
    assert is_same_document(page)


def test_group_that_an_agent_joins_appears(page: Page, fleet: StagedFleet) -> None:
    follow(page, "/agents/web-03")
    fleet.ledger.groups.add("canary", ["web-03"])
    expect(page.get_by_role("main")).to_contain_text("canary")
    assert is_same_document(page)


def test_focus_and_open_parts_stay(page: Page, fleet: StagedFleet) -> None:
    follow(page, "/agents/web-03")
    page.get_by_text("supported types").click()
    page.get_by_role("link", name="All commands of web-03").focus()
    fleet.ran("web-03", fleet.add("web-03", "start-agent"))
    expect(page.get_by_role("link", name="start-agent").first).to_be_visible()
    expect(page.get_by_role("link", name="All commands of web-03")).to_be_focused()
    expect(page.locator("#types")).to_have_attribute("open", "")


def test_what_happened_while_the_server_was_away_appears(log_in: LogIn, fleet: StagedFleet) -> None:
    with ExitStack() as first:
        api = first.enter_context(running_api(fleet.ledger, fleet.clock))
        page = log_in(api=api)
        follow(page, "/commands?agent=db-03")
        expect(page.get_by_text("No command matches")).to_be_visible()
        first.close()
        expect(page.locator("#live")).to_have_text("Reconnecting")
        fleet.ran("db-03", fleet.add("db-03", "stop-agent"))
        with running_api(fleet.ledger, fleet.clock, port=urlsplit(api.url).port or 0):
            expect(page.get_by_role("link", name="stop-agent")).to_be_visible(timeout=15_000)
            expect(page.locator("#live")).to_have_text("Live")
            assert is_same_document(page)
            page.close()


def test_what_happened_while_the_machine_slept_appears(page: Page, fleet: StagedFleet) -> None:
    """The stream is as after a sleep: dead, without an error."""
    page.clock.install()

    def hang(route: Route) -> None:
        pass

    page.route(re.compile(r"/live\?"), hang)
    page.goto("/commands?agent=web-06")
    fleet.add("web-06", "get-agent-configuration")
    expect(page.get_by_text("No command matches")).to_be_visible()
    page.clock.fast_forward(60_000)
    expect(page.get_by_role("link", name="get-agent-configuration")).to_be_visible()


def test_what_no_event_tells_of_appears_within_a_minute(page: Page, fleet: StagedFleet) -> None:
    page.clock.install()
    follow(page, "/enrolment-tokens")
    TokenStore(fleet.database, now=fleet.clock.now).add("lab-09", new_enrolment_token("f"), timedelta(hours=1))
    for _ in range(8):  # in steps, which are no sleep of the machine
        page.clock.run_for(5_000)
    expect(page.get_by_role("link", name="lab-09")).to_be_visible()
    assert is_same_document(page)


def test_session_that_has_ended_leads_to_the_log_in(page: Page, fleet: StagedFleet) -> None:
    follow(page, "/agents")
    page.context.clear_cookies()
    fleet.say("web-04", online=False)
    page.wait_for_url("**/login?next=%2Fagents")


@pytest.mark.parametrize("path", ["/live?since=no", "/live?command=no"])
def test_stream_of_nothing_is_refused(page: Page, path: str) -> None:
    assert page.request.get(path).status in (400, 404)
