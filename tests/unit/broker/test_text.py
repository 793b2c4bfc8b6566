"""Times and strings in their written forms, counts, and text from others made safe to show."""

import tomllib
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.text import counted, printable, printable_line, rfc3339, toml_string

UNSAFE = "\x00\x1b\x7f\x9b\u200b\u202e\u2028\u2029\ud800\ue000\U000e0001"


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ("agent",), "0 agents"),
        (1, ("agent",), "1 agent"),
        (2, ("agent",), "2 agents"),
        (1, ("entry", "entries"), "1 entry"),
        (2, ("entry", "entries"), "2 entries"),
    ],
)
def test_count_has_its_noun_in_singular_or_plural(count: int, nouns: tuple[str, ...], text: str) -> None:
    assert counted(count, *nouns) == text


@pytest.mark.parametrize("text", ["plain", "Grüße, 世界 €", "two\n\tlines"])
def test_safe_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("character", UNSAFE)
def test_unsafe_character_is_replaced(character: str) -> None:
    assert printable(f"a{character}b") == printable_line(f"a{character}b") == "a\ufffdb"


def test_line_has_no_line_feed_and_no_tab() -> None:
    assert printable_line("a\n\tb\r") == "a\ufffd\ufffdb\ufffd"


def test_line_is_cut_to_its_maximum_length() -> None:
    assert printable_line("x" * 10, 10) == "x" * 10
    assert printable_line("x" * 11, 10) == "x" * 9 + "…"


@given(st.text())
def test_any_text_becomes_printable_and_keeps_its_length(text: str) -> None:
    shown = printable_line(text)
    assert len(shown) == len(text)
    assert all(unicodedata.category(character)[0] != "C" for character in shown)


def test_time_is_written_in_the_form_of_rfc_3339() -> None:
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)) == "2026-01-02T03:04:05.000600Z"
    assert rfc3339(None) is None


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_printable_text_survives_as_a_string_of_toml(text: str) -> None:
    assert tomllib.loads(f"text = {toml_string(text)}") == {"text": text}
