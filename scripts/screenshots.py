"""Takes docs/screenshots: the main pages for operators, in both themes and widths, of a staged fleet.

`make screenshots` does it; tests/project checks that none is missing and each is shown in a document.
"""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, FloatRect, StorageState, expect

from broker.fleet.models import Role
from tests.support.api import RunningApi, running_api
from tests.support.chromium import chromium
from tests.support.staged_fleet import StagedFleet, staged_fleet

DIRECTORY = Path("docs/screenshots")
THEMES = ("light", "dark")
WIDTHS = {"wide": 1440, "narrow": 375}
_LEAST_HEIGHT, _MOST_HEIGHT = 812, 1200
_COLORS = 256
_Color = tuple[int, int, int]


def main() -> None:
    """Take all screenshots."""
    DIRECTORY.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="acm-screenshots-") as directory,
        staged_fleet(Path(directory)) as fleet,
        running_api(fleet.ledger, fleet.clock, config=fleet.config) as api,
        chromium() as browser,
    ):
        session = _logged_in(browser, api)
        paths = {name: api.url + path for name, path in _paths(fleet).items()}
        for theme in THEMES:
            for width in WIDTHS:
                _take(browser, session, paths, theme, width)


def _paths(fleet: StagedFleet) -> Mapping[str, str]:
    """Return the addresses of the pages, by the name of the screenshot."""
    return {
        "fleet": "/",
        "agents": "/agents",
        "agent": "/agents/db-02",
        "command": f"/commands/{fleet.commands['failed']}",
        "waiting-command": f"/commands/{fleet.commands['waiting']}",
        "operation": f"/operations/{fleet.operation}",
        "send": "/send?type=restart-agent&target=group&group=web",
        "enrolments": "/enrolments",
        "audit-log": "/audit-log",
    }


def _take(browser: Browser, session: StorageState, paths: Mapping[str, str], theme: str, width: str) -> None:
    viewport = {"width": WIDTHS[width], "height": _LEAST_HEIGHT}
    options: dict[str, Any] = {"viewport": viewport, "color_scheme": theme, "storage_state": session}
    context = browser.new_context(**options)
    page = context.new_page()
    for name, url in paths.items():
        page.goto(url)
        if page.locator("[data-live]").count():
            expect(page.locator("#live")).to_have_text("Live")
        height = min(max(page.evaluate("document.documentElement.scrollHeight"), _LEAST_HEIGHT), _MOST_HEIGHT)
        clip: FloatRect = {"x": 0, "y": 0, "width": WIDTHS[width], "height": height}
        _save(page.screenshot(full_page=True, clip=clip), DIRECTORY / f"{name}-{theme}-{width}.png")
    context.close()


def _logged_in(browser: Browser, api: RunningApi) -> StorageState:
    """Return the cookies of a session."""
    context = browser.new_context(base_url=api.url)
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("Access token").fill(api.as_(Role.ADMIN, name="alice")["Authorization"].split()[1])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{api.url}/")
    session = context.storage_state()
    context.close()
    return session


def _save(png: bytes, path: Path) -> None:
    """Write an image with a palette of its most frequent colors, half as large.

    Those stay exactly as they are; the others, which are in edges of letters, become the nearest of them.
    """
    image: Any = Image.open(io.BytesIO(png)).convert("RGB")
    counted: list[tuple[int, _Color]] = sorted(image.getcolors(image.width * image.height), reverse=True)
    palette = [color for _, color in counted[:_COLORS]]
    place = {color: palette.index(_nearest(color, palette)) for _, color in counted}
    small: Any = Image.new("P", image.size)
    small.putpalette([value for color in palette for value in color])
    small.putdata([place[color] for color in image.getdata()])
    small.save(path, optimize=True)


def _nearest(color: _Color, palette: Sequence[_Color]) -> _Color:
    if color in palette:
        return color
    return min(palette, key=lambda it: sum((one - other) ** 2 for one, other in zip(color, it, strict=True)))


if __name__ == "__main__":
    main()
