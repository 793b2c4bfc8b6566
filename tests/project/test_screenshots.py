"""docs/screenshots has each page in both themes and widths, as `make screenshots` takes them; a document shows it."""

import re
import struct
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCREENSHOTS = sorted((ROOT / "docs" / "screenshots").iterdir())
PAGES = (
    "agent",
    "agents",
    "audit-log",
    "command",
    "enrolments",
    "fleet",
    "operation",
    "send",
    "waiting-command",
)
WIDTHS = {"wide": 1440, "narrow": 375}
MAX_BYTES = 150_000


def test_every_page_is_there_in_both_themes_and_widths_and_shown() -> None:
    wanted = {f"{page}-{theme}-{width}.png" for page, theme, width in product(PAGES, ("light", "dark"), WIDTHS)}
    assert {path.name for path in SCREENSHOTS} == wanted
    document = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(screenshots/([^)]+)\)", document)) == wanted


@pytest.mark.parametrize("path", SCREENSHOTS, ids=lambda path: path.name)
def test_screenshot_is_a_small_picture_of_its_width(path: Path) -> None:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    (width,) = struct.unpack(">I", content[16:20])
    assert width == WIDTHS[path.stem.rpartition("-")[2]]
    assert len(content) < MAX_BYTES
