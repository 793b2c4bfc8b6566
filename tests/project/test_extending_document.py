"""docs/extending.md shows pieces of files that are checked and run, word by word."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("examples/**/*.py"), ROOT / "examples/rotate-logs/pyproject.toml"]
BLOCKS = re.findall(
    r"^```(?:python|toml)\n(.*?)^```", (ROOT / "docs/extending.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_shown_stands_in_the_examples(block: str) -> None:
    assert any(block in source.read_text() for source in SOURCES)


def test_there_is_something_shown() -> None:
    assert len(BLOCKS) >= 5
