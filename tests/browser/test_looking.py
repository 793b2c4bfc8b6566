"""What operators see in a real browser: every page in both themes and widths, by keyboard, and by a screen reader."""

import pytest
from playwright.sync_api import Page, expect

from broker.enrolment.store import EnrolmentStore
from broker.fleet.models import Role
from tests.browser.conftest import NARROW, WIDE, LogIn
from tests.support.api import RunningApi
from tests.support.chromium import violations
from tests.support.staged_fleet import StagedFleet


def paths_of(fleet: StagedFleet) -> list[str]:
    commands = [f"/commands/{fleet.commands[name]}" for name in ("succeeded", "failed", "running", "waiting")]
    agents = ["/", "/agents", "/agents/web-01", "/agents/db-02", "/agents/new-01"]
    enrolment = next(it.id for it in EnrolmentStore(fleet.database, now=fleet.clock.now).enrolments("build-01"))
    administration = ["/enrolments", f"/enrolments/{enrolment}", "/enrolment-tokens", "/keys", "/audit-log"]
    return [*agents, "/commands", *commands, *administration]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_is_accessible_and_fits(fleet: StagedFleet, log_in: LogIn, theme: str, size: dict[str, int]) -> None:
    page = log_in(viewport=size, color_scheme=theme)
    for path in paths_of(fleet):
        page.goto(path)
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_log_in_is_accessible_and_says_what_is_wrong(browser, api: RunningApi) -> None:  # type: ignore[no-untyped-def]
    page = browser.new_page(base_url=api.url)
    page.goto("/login")
    assert violations(page) == []
    page.get_by_label("Access token").fill("acm_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("unknown here")
    assert violations(page) == []
    page.close()


def test_page_loads_nothing_from_elsewhere(log_in: LogIn, api: RunningApi, fleet: StagedFleet) -> None:
    page = log_in()
    asked: list[str] = []
    page.on("request", lambda it: asked.append(it.url))
    for path in paths_of(fleet):
        page.goto(path)
    assert asked
    assert [url for url in asked if not url.startswith(f"{api.url}/")] == []


def test_scripts_cannot_read_the_session_or_the_token(page: Page) -> None:
    (cookie,) = [it for it in page.context.cookies() if it["name"] == "acm-session"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("[document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]
    assert cookie["value"] not in page.content()


def test_link_of_another_site_opens_the_page_of_a_session(page: Page, api: RunningApi, fleet: StagedFleet) -> None:
    """The strict cookie is not sent with it, so the page loads itself again."""
    elsewhere = api.url.replace("127.0.0.1", "localhost")
    page.goto(f"{elsewhere}/login")
    page.evaluate(f"location.href = '{api.url}/agents/web-01'")
    expect(page.get_by_role("heading", level=1)).to_contain_text("web-01")


def test_theme_is_kept(page: Page) -> None:
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").click()
    page.goto("/agents")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 23, 28)"


def test_agents_are_searched_filtered_and_sorted(page: Page) -> None:
    page.goto("/agents")
    expect(page.get_by_role("row")).to_have_count(21)
    page.get_by_label("Group").select_option("database")
    expect(page.get_by_role("row")).to_have_count(4)
    page.get_by_label("Name").fill("02")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row")).to_have_count(2)
    assert "group=database" in page.url
    assert "name=02" in page.url
    page.get_by_role("link", name="All agents").click()
    page.get_by_role("link", name="Open", exact=True).click()
    expect(page.get_by_role("columnheader", name="Open")).to_have_attribute("aria-sort", "descending")
    expect(page.get_by_role("row").nth(1)).to_contain_text("edge-07")


def test_audit_log_leads_to_what_came_of_an_action(page: Page, fleet: StagedFleet) -> None:
    page.goto("/")
    page.get_by_role("link", name="Audit log").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/audit-log")
    expect(page.get_by_role("row")).to_have_count(51)
    page.get_by_label("What").fill("restart")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_role("link", name="send restart-agent").first.click()
    page.wait_for_url(f"**/commands/{fleet.commands['succeeded']}")


def test_enrolments_are_sorted_by_the_end_of_their_certificates(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="All certificates by their end").click()
    expect(page.get_by_role("columnheader", name="Certificate until")).to_have_attribute("aria-sort", "ascending")
    expect(page.get_by_role("row").nth(1)).to_contain_text("edge-07")
    page.get_by_label("State").select_option("revoked")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="Tokens", exact=True).click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("lab-03")


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="20 agents")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/agents")
    page.get_by_role("link", name="web-01").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/agents/web-01")


def test_screen_reader_hears_a_command(page: Page, fleet: StagedFleet) -> None:
    page.goto(f"/commands/{fleet.commands['waiting']}")
    tree = page.locator("main").aria_snapshot()
    assert '- heading "restart-agent to edge-07 sent" [level=1]' in tree
    assert 'region "Why it waits"' in tree
    assert "edge-07 has been offline since" in tree
    assert "- listitem: Stored on the agent it waits for this" in tree


def test_principal_with_groups_sees_its_agents_alone(log_in: LogIn) -> None:
    page = log_in(Role.VIEWER, "database", name="dora")
    expect(page.get_by_role("link", name="3 agents")).to_be_visible()
    page.goto("/agents/web-01")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not Found")


def test_log_out_ends_the_session(page: Page) -> None:
    before = page.context.cookies()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.context.add_cookies(before)
    page.goto("/agents")
    page.wait_for_url("**/login?next=%2Fagents")
