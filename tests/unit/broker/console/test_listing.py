"""Lists of a command line: their columns, their order, and the formats that they are printed in."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from typer.testing import CliRunner

from broker.console.listing import Column, Listing, Shown, time_column
from broker.console.output import Printer
from broker.console.output_options import with_printer
from broker.errors import InvalidArgument
from tests.support.errors import raises_code


class Thing(NamedTuple):
    name: str
    made: datetime | None = None
    size: int = 0
    tags: Sequence[str] = ()
    note: str = ""


THINGS = Listing[Thing](
    "thing",
    (
        Column("name", lambda it: it.name),
        time_column("made_at", lambda it: it.made),
        Column("size", lambda it: it.size),
        Column("tags", lambda it: it.tags, Shown.WIDE),
        Column("note", lambda it: it.note, Shown.ON_REQUEST),
    ),
    name=lambda it: it.name,
    document=lambda it: {"name": it.name, "size": it.size},
)
ROWS = [
    Thing("first", datetime(2026, 11, 29, 8, 5, tzinfo=UTC), 10, ("a", "b"), "a long note, \x1b[2Jwith a control"),
    Thing("second", None, 9),
]
app = typer.Typer()


@app.command()
@with_printer(THINGS)
def things(printer: Printer) -> None:
    """List things."""
    printer.show_list(THINGS, lambda: ROWS)


def listed(*words: str) -> str:
    return str(CliRunner().invoke(app, words, catch_exceptions=False).stdout)


def test_pipe_gets_plain_lines_with_the_names_that_columns_are_asked_for_by() -> None:
    assert listed().splitlines() == [
        "name    made_at               size",
        "first   2026-11-29T08:05:00Z  10",
        "second  -                     9",
    ]
    assert listed("-o", "plain") == listed()


def test_table_has_a_title_and_headers_for_people() -> None:
    title, headers, *_ = listed("-o", "table").splitlines()
    assert (title, headers.split()) == ("2 things", ["name", "made", "at", "(UTC)", "size"])


def test_headers_can_be_left_out() -> None:
    assert [line.split()[0] for line in listed("--no-headers").splitlines()] == ["first", "second"]
    assert [line.split()[0] for line in listed("--no-headers", "-o", "table").splitlines() if line] == [
        "first",
        "second",
    ]


def test_wide_shows_more_columns_and_any_can_be_asked_for() -> None:
    assert "a, b" in listed("-o", "wide")
    assert "tags" not in listed("-o", "table")
    asked = listed("--columns", "note, name").splitlines()
    assert [line.split()[-1] for line in asked] == ["name", "first", "second"]
    assert "\x1b" not in asked[1]
    assert "a long note" in asked[1]


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("size", ["second", "first"]),
        ("-size", ["first", "second"]),
        ("-name", ["second", "first"]),
        ("made_at", ["first", "second"]),
        ("-made_at", ["first", "second"]),  # what has no value comes last
    ],
)
def test_rows_are_sorted_by_the_values_of_a_column(order: str, names: list[str]) -> None:
    assert listed("-o", "name", "--sort", order).split() == names


@pytest.mark.parametrize("words", [("--columns", "name,sise"), ("--sort", "sise")])
def test_unknown_column_is_refused_with_the_similar_one_and_all(words: tuple[str, str]) -> None:
    with raises_code(InvalidArgument, "unknown_column") as refused:
        listed(*words)
    assert "Did you mean size?" in str(refused.value)
    assert "name, made_at, size, tags, note" in str(refused.value)


@pytest.mark.parametrize(
    ("words", "decode"), [(["-o", "json"], json.loads), (["--json"], json.loads), (["-o", "yaml"], yaml.safe_load)]
)
def test_programs_get_all_rows_as_one_document(words: list[str], decode: Any) -> None:
    assert decode(listed(*words)) == [{"name": "first", "size": 10}, {"name": "second", "size": 9}]


def test_two_formats_at_once_are_refused() -> None:
    with raises_code(InvalidArgument, "conflicting_options"):
        listed("--json", "-o", "name")
    assert listed("--json", "-o", "json") == listed("--json")


def test_list_without_rows_has_its_headers_in_plain_and_no_names() -> None:
    empty = typer.Typer()

    @empty.command()
    @with_printer(THINGS)
    def nothing(printer: Printer) -> None:
        """List nothing."""
        printer.show_list(THINGS, list)

    def shown(*words: str) -> str:
        return str(CliRunner().invoke(empty, words, catch_exceptions=False).stdout)

    assert shown().split() == ["name", "made_at", "size"]
    assert (shown("-o", "name"), shown("--json")) == ("", "[]\n")


def on_terminal(columns: int, *words: str) -> list[str]:
    environment = {"TTY_COMPATIBLE": "1", "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}
    shown = CliRunner().invoke(app, words, env=environment, catch_exceptions=False).stdout
    return str(shown).splitlines()


@pytest.mark.parametrize("columns", range(20, 100, 7))
def test_no_word_is_cut_at_any_width(columns: int) -> None:
    lines = on_terminal(columns, "-o", "table", "--columns", "name,made_at,tags,note")
    words = " ".join(lines).replace("T", " ").split()
    for word in ["first", "second", "2026-11-29", "08:05:00", "a", "long", "note,", "control"]:
        assert any(shown.startswith(word) for shown in words), (word, lines)


def test_wide_texts_are_folded_and_a_terminal_that_is_too_narrow_gets_plain_lines() -> None:
    words = ("-o", "table", "--columns", "name,made_at,note")
    assert on_terminal(48, *words)[2].endswith("a long note,")
    assert max(map(len, on_terminal(48, *words))) <= 48
    assert on_terminal(30, *words)[1:] == listed("--columns", "name,made_at,note").splitlines()
