"""The order of versions, and which texts are refused."""

import pytest

from broker.release.versions import InvalidVersion, parse_version


def test_versions_are_ordered_as_by_pep_440() -> None:
    texts = ["2", "1.10", "1.2", "1.0.1", "1.0.post1", "1.0", "1.0rc1", "1.0b1", "1.0a2", "1.0a1", "1.0.dev1", "0.9"]
    assert sorted(texts, key=parse_version) == list(reversed(texts))


def test_trailing_zeros_make_no_difference() -> None:
    assert parse_version("1.0.0") == parse_version("1")
    assert parse_version("0.0") == parse_version("0")


NOT_PEP_440 = ["1.", "1..2", "1.x", "1.0a1b2"]
UNSAFE = ["", ".", "..", "v1", "1/2", "1.0-1", "1.0+x", "1!2", " 1", "1 ", "1\n", "\u0661", "1.\u0662", "1" * 65]


@pytest.mark.parametrize("text", [*NOT_PEP_440, *UNSAFE])
def test_text_that_is_not_a_version_or_not_a_safe_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidVersion):
        parse_version(text)
