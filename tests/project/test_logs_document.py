"""The table in docs/logs.md has every event that the programs log, with its levels, and no other."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "logs.md"
EVENT = re.compile(r"[a-z]+(_[a-z]+)+")
LEVELS = {
    **{name: name for name in ("debug", "info", "warning", "error", "critical")},
    "exception": "error",
    **dict.fromkeys(("warn", "_warn", "refuse", "_refuse"), "warning"),  # they limit how often it is logged
    "log": "any",  # of libraries
    "command_line": "info",
    "event_line": "info",
}
LOGGERS = {"_log", "log", "get_logger"}
ON_BOTH_SIDES = ("broker/mqtt/", "broker/system/", "broker/tracing/")


class Logged(NamedTuple):
    """An event in the code: its name (None if it is not a literal), level and the folder of its module."""

    event: str | None
    level: str
    path: str


def name_of(node: ast.expr) -> str:
    """Return the last name of `a`, `b.a`, and `b.a(…)`."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    return getattr(node, "attr", getattr(node, "id", ""))


def literal(node: ast.expr | None) -> str | None:
    is_event = isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT.fullmatch(node.value)
    return node.value if is_event else None  # type: ignore[union-attr, return-value]


def logged_in(tree: ast.AST, path: str) -> Iterator[Logged]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):  # a default for the name of the event
            given = node.args[len(node.args) - len(node.defaults) :]
            defaults = (value for arg, value in zip(given, node.defaults, strict=True) if arg.arg == "event")
            yield from (Logged(literal(value), "warning", path) for value in defaults)
        if isinstance(node, ast.Call):
            yield from logged_by(node, path)


def logged_by(call: ast.Call, path: str) -> Iterator[Logged]:
    level = LEVELS.get(name_of(call.func))
    named = [literal(it.value) for it in call.keywords if it.arg == "event"]
    events = [*(literal(it) for it in call.args[:2]), *named]
    found = next((it for it in events if it is not None), None)
    is_of_logger = isinstance(call.func, ast.Attribute) and name_of(call.func.value) in LOGGERS
    if found is not None and (level is not None or named):
        yield Logged(found, level or "warning", path)
    elif is_of_logger and level is not None:
        yield Logged(None, ast.unparse(call), path)


def all_logged() -> list[Logged]:
    files = [path for package in ("broker", "consumer") for path in sorted((ROOT / package).rglob("*.py"))]
    return [
        found
        for path in files
        for found in logged_in(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix())
    ]


def side_of(paths: set[str]) -> str:
    sides = {
        "both" if path.startswith(ON_BOTH_SIDES) else "agent" if path.startswith("consumer/") else "server side"
        for path in paths
    }
    return sides.pop() if len(sides) == 1 else "both"


def rows() -> dict[str, tuple[str, str]]:
    """Return the level and the side of each event in the document."""
    lines = DOCUMENT.read_text(encoding="utf-8").split("\n## Events\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    found = {name.strip("`"): (level, side) for name, level, side, *_ in cells}
    assert len(found) == len(cells), "an event has two rows"
    return found


def test_document_has_every_event_with_its_level_and_side_and_no_other() -> None:
    if not all(map(find_spec, ("broker.server", "consumer"))):
        pytest.skip("the tree has only one side")
    by_event: dict[str, list[Logged]] = {}
    for it in all_logged():
        if it.event is not None:
            by_event.setdefault(it.event, []).append(it)
    expected = {
        event: (
            ", ".join(level for level in ("any", "debug", "info", "warning", "error", "critical") if level in levels),
            side,
        )
        for event, found in by_event.items()
        for levels, side in [({it.level for it in found}, side_of({it.path for it in found}))]
    }
    assert rows() == expected


def test_every_event_is_named_where_it_is_logged() -> None:
    unnamed = [it for it in all_logged() if it.event is None]
    helpers = [it for it in unnamed if re.search(r"\((self\._)?event\b", it.level)]
    assert [it for it in unnamed if it not in helpers] == []


def test_events_in_the_document_are_sorted() -> None:
    assert list(rows()) == sorted(rows())
