"""A staged fleet, its API with the page, and a browser: one of each for a module."""

from collections.abc import Callable, Iterator
from time import monotonic

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from broker.fleet.models import Role
from tests.support.api import RunningApi, running_api
from tests.support.chromium import chromium
from tests.support.staged_fleet import StagedFleet, staged_fleet

WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 375, "height": 812}
SOON_MS = 15_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=SOON_MS)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedFleet]:
    with staged_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def api(fleet: StagedFleet) -> Iterator[RunningApi]:
    with running_api(fleet.ledger, fleet.clock, config=fleet.config, monotonic=monotonic) as api:
        yield api


LogIn = Callable[..., Page]


@pytest.fixture
def log_in(browser: Browser, api: RunningApi) -> Iterator[LogIn]:
    """Return what logs a principal in, in a context of its own, and returns its page. No script of it may fail."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def log_in(
        role: Role = Role.ADMIN, *groups: str, name: str | None = None, api: RunningApi = api, **options: object
    ) -> Page:
        context = browser.new_context(base_url=api.url, **{"viewport": WIDE, **options})
        context.set_default_timeout(SOON_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda it: problems.append(it.text) if "Security Policy" in it.text else None)
        page.goto("/login")
        page.get_by_label("Access token").fill(api.as_(role, *groups, name=name)["Authorization"].split()[1])
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{api.url}/")
        return page

    yield log_in
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(log_in: LogIn) -> Page:
    return log_in()
