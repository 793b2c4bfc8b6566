"""Words that are shown, beside those of others (test_hostile_words.py)."""

import pytest

from broker.contract.plain_text import counted


@pytest.mark.parametrize(
    ("number", "more", "words"),
    [(0, None, "0 agents"), (1, None, "1 agent"), (2, None, "2 agents"), (2, "entries", "2 entries")],
)
def test_a_number_agrees_with_what_it_counts(number: int, more: str | None, words: str) -> None:
    assert counted(number, "agent", more) == words
