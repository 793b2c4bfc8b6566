"""The order of versions, and what is none."""

import pytest

from broker.release.versions import InvalidVersion, Version


def test_versions_in_their_order() -> None:
    texts = ["2", "1.10", "1.2", "1.0.1", "1.0", "1.0rc1", "1.0b1", "1.0a2", "1.0a1", "0.9"]
    assert sorted(texts, key=Version.parse) == list(reversed(texts))


def test_zeros_at_the_end_say_nothing() -> None:
    assert Version.parse("1.0.0") == Version.parse("1")
    assert Version.parse("0.0") == Version.parse("0")


@pytest.mark.parametrize("text", ["", ".", "..", "1.", "v1", "1/2", "1.0-1", "1.0+x", " 1", "1\n", "\u0661"])
def test_what_is_no_version_and_no_safe_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidVersion, match="is not a version; write numbers and dots"):
        Version.parse(text)
