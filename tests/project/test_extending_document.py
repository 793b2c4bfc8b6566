"""Code blocks in docs/extending.md are parts of files that are type-checked and run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*ROOT.glob("examples/**/*.py"), ROOT / "examples/rotate-logs/pyproject.toml"]
BLOCKS = re.findall(
    r"^```(?:python|toml)\n(.*?)^```", (ROOT / "docs/extending.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("block", BLOCKS)
def test_code_block_is_part_of_an_example(block: str) -> None:
    assert any(block in source.read_text() for source in SOURCES)


def test_document_has_code_blocks() -> None:
    assert len(BLOCKS) >= 5
