"""What a user may have meant: similar words, and ids by their beginnings."""

import pytest

from broker.suggestions import AmbiguousId, did_you_mean, only_beginning_with
from tests.support.errors import raises_code


@pytest.mark.parametrize(("word", "hint"), [("restart-agnet", " Did you mean restart-agent?"), ("xyz", "")])
def test_most_similar_word_is_suggested(word: str, hint: str) -> None:
    assert did_you_mean(word, ["stop-agent", "restart-agent"]) == hint


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("0190f5b2-7b7a", "0190f5b2-7b7a-a"),
        ("0190F5B27B7A", "0190f5b2-7b7a-a"),
        ("B", "b"),
        ("b", "b"),
        ("c", None),
        ("", None),
        ("-", None),
    ],
)
def test_id_is_found_by_its_beginning(given: str, found: str | None) -> None:
    assert only_beginning_with(given, ["0190f5b2-7b7a-a", "b", "0190f5c3"]) == found


def test_beginning_of_several_ids_names_two_of_them_unless_it_is_one() -> None:
    with raises_code(AmbiguousId, "ambiguous_id") as caught:
        only_beginning_with("AB", ["ab3", "ab2", "ab1"])
    assert str(caught.value) == "Several ids begin with 'AB', such as ab1 and ab2: write more."
    assert only_beginning_with("ab", ["ab", "abc"]) == "ab"
