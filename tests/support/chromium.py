"""Debian's Chromium, driven by playwright, which must not download a browser of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["chromium", "violations"]

EXECUTABLE = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser for a block, with a new profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with a page: the rule, and where."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found: list[Any] = page.evaluate(AXE)
    return [f"{it['id']}: {node['html'][:200]} {node['failureSummary']}" for it in found for node in it["nodes"]]
