"""The documents' links lead somewhere, and comments name decisions that docs/design.md has."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.words import text_files

ROOT = Path(__file__).parents[2]
DOCUMENTS = [name for name in text_files() if name.endswith(".md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
DECISION = re.compile(r'# design\.md: "([^"]+)"')


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"(?ms)^```.*?^```$", "", path.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_a_file_and_a_heading(name: str) -> None:
    for link in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link


def test_index_names_every_document() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    others = {path.name for path in (ROOT / "docs").iterdir()} - {"README.md"}
    assert {link for link in LINK.findall(index) if "/" not in link} == others


def test_comments_name_decisions_of_the_design() -> None:
    design = " ".join((ROOT / "docs/design.md").read_text(encoding="utf-8").split())
    named = {
        (name, decision)
        for name in text_files()
        if name.endswith(".py") and not name.startswith("tests/project/")
        for decision in DECISION.findall((ROOT / name).read_text(encoding="utf-8"))
    }
    assert sorted((name, decision) for name, decision in named if f"**{decision}" not in design) == []


def test_terms_of_the_glossary_are_in_alphabetical_order() -> None:
    table = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").partition("\n| term |")[2]
    terms = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)[1:]
    assert len(terms) > 40
    assert [(a, b) for a, b in pairwise(terms) if a.casefold() > b.casefold()] == []
