"""docs/reliability.md: each fault has a promise, and a test that exists or the reason why there is none."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (?!fault \|)(?P<fault>[^|]+) \| (?P<promise>[^|]+) \| (?P<test>[^|]+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[re.Match[str]]:
    return list(_ROW.finditer((ROOT / "docs/reliability.md").read_text(encoding="utf-8")))


def test_every_line_of_a_table_is_a_row() -> None:
    lines = (ROOT / "docs/reliability.md").read_text(encoding="utf-8").splitlines()
    in_tables = [line for line in lines if line.startswith("|") and not line.startswith(("|---", "| fault |"))]
    assert in_tables == [row[0] for row in rows()]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["fault"][:60])
def test_fault_names_a_test_that_exists(row: re.Match[str]) -> None:
    tests = _TEST.findall(row["test"])
    assert tests or row["test"].startswith("— "), "name a test as `tests/FILE.py::NAME`, or write '— ' and the reason"
    for path, name in tests:
        assert re.search(rf"^ *(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name
