"""A person logs in at an issuer, which is another site for the browser: cookies are sent as they are in the field."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.api import RunningApi
from tests.support.chromium import violations
from tests.support.issuer import Issuer, running_issuer
from tests.support.log_ins import api_with_issuer
from tests.support.staged_fleet import StagedFleet


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer("localhost") as running:
        yield running


@pytest.fixture(scope="module")
def api(fleet: StagedFleet, issuer: Issuer) -> Iterator[RunningApi]:
    with api_with_issuer(issuer, fleet.ledger, fleet.clock) as running:
        yield running


@pytest.fixture
def page(browser: Browser, api: RunningApi) -> Iterator[Page]:
    with browser.new_context(base_url=api.url) as context:
        yield context.new_page()


def test_deep_link_is_opened_by_way_of_the_issuer(page: Page, api: RunningApi) -> None:
    page.goto("/agents/web-01")
    page.wait_for_url("**/login?next=%2Fagents%2Fweb-01")
    assert violations(page) == []
    page.get_by_role("link", name="Log in at localhost").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{api.url}/agents/web-01")
    expect(page.get_by_role("heading", level=1)).to_contain_text("web-01")
    expect(page.get_by_text("oidc:alice")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Live")
    assert [it["name"] for it in page.context.cookies()] == ["acm-session"]
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")


def test_log_in_that_the_issuer_refuses_says_so(page: Page, issuer: Issuer) -> None:
    issuer.sent_back = {"code": None, "error": "access_denied"}
    page.goto("/login")
    page.get_by_role("link", name="Log in at localhost").click()
    expect(page.get_by_role("alert")).to_have_text("The issuer has refused the log-in: access_denied.")
    assert violations(page) == []
    issuer.sent_back = {}
    page.get_by_role("link", name="Log in at localhost").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Fleet")
