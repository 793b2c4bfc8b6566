"""Links in documents have a target, and comments name decisions that are in docs/design.md."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from broker.cli.main import app as acm
from consumer.cli.main import app as acm_agent
from scripts.words import text_files

ROOT = Path(__file__).parents[2]
DOCUMENTS = [name for name in text_files() if name.endswith(".md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAX_COLUMNS = 120
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
    others = {path.name for path in (ROOT / "docs").iterdir() if path.is_file()} - {"README.md"}
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


TOOLS = {"acm": acm, "acm-agent": acm_agent}
COMMAND_LINE = re.compile(r"(?m)(?:^|`|\| |&& |-- |/bin/| server )(acm|acm-agent) ((?:[a-z][a-z-]* ?){1,2})")


def command_lines_in(text: str) -> set[tuple[str, tuple[str, ...]]]:
    """Return the tool and the first words of each command line in a document's code."""
    code = re.findall(r"(?ms)^```.*?^```|`[^`\n]+`", text)
    return {(tool, tuple(words.split())) for part in code for tool, words in COMMAND_LINE.findall(part)}


def exists(tool: str, words: tuple[str, ...]) -> bool:
    command: Any = typer.main.get_command(TOOLS[tool])
    for word in words:
        if not hasattr(command, "commands"):
            return True  # an argument
        if word not in command.commands:
            return False
        context = command.make_context(tool, [], resilient_parsing=True)
        command = command.resolve_command(context, [word])[1]
    return True


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_command_lines_in_documents_exist(name: str) -> None:
    found = command_lines_in((ROOT / name).read_text(encoding="utf-8"))
    assert [(tool, words) for tool, words in sorted(found) if not exists(tool, words)] == []


def test_unknown_command_line_is_found() -> None:
    assert command_lines_in("`acm no such`, ```acm``` and acm text") == {("acm", ("no", "such"))}
    assert not exists("acm", ("no",))
    assert not exists("acm", ("ca", "no"))
    assert exists("acm", ("ca", "init"))


SOURCES = "\n".join(
    (ROOT / name).read_text(encoding="utf-8") for name in text_files() if name.startswith(("broker/", "consumer/"))
)


@pytest.mark.parametrize("name", [f"docs/{name}.md" for name in ("commands", "operations", "protocol", "upgrades")])
def test_names_in_documents_are_in_the_code(name: str) -> None:
    names = re.findall(r"`([a-z]+(?:_[a-z]+)+)`", (ROOT / name).read_text(encoding="utf-8"))
    assert [it for it in sorted(set(names)) if not re.search(rf"\b{it}\b", SOURCES)] == []


PATHS = re.compile(r"`((?:benchmarks|broker|consumer|docker|examples|packaging|scripts|tests)/[\w./-]+)`")
TESTS = re.compile(r"`(test_\w+)(\.py)?`")
TEST_SOURCES = {name: (ROOT / name).read_text(encoding="utf-8") for name in text_files() if name.startswith("tests/")}


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_paths_and_tests_in_documents_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert [path for path in PATHS.findall(text) if not any(ROOT.glob(path))] == []
    files = {Path(path).name for path in TEST_SOURCES}
    tests = {test for source in TEST_SOURCES.values() for test in re.findall(r"def (test_\w+)", source)}
    assert [
        test for test, suffix in TESTS.findall(text) if (test + suffix not in files if suffix else test not in tests)
    ] == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "docs/errors.md"])
def test_prose_is_wrapped_at_120_columns(name: str) -> None:
    text = re.sub(r"(?ms)^```.*?^```$", "", (ROOT / name).read_text(encoding="utf-8"))
    assert [line for line in text.splitlines() if len(line) > MAX_COLUMNS and not line.startswith("|")] == []
