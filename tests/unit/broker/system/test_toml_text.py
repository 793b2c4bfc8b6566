"""TOML is read whatever its keys are, in memory that its length bounds."""

import pytest

from broker.system.toml_text import load_toml


@pytest.mark.parametrize(
    "text",
    [
        f"a{'.a' * 100} = 1",
        f"[a{'.a' * 100_000}]",
        "a" + ".'b'" * 100_000 + " = 1",
        f"x = {{a{' . a' * 200} = 1}}",
    ],
    ids=["bare", "table", "quoted", "inline"],
)
def test_key_of_too_many_parts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than 100 parts"):
        load_toml(text)


@pytest.mark.parametrize("quote", ['"', "'", '"""', "'''"])
def test_dots_in_strings_and_comments_are_no_keys(quote: str) -> None:
    text = f"x = {quote}{'a.' * 1000}{quote} # {'a.' * 1000}\n"
    assert load_toml(text) == {"x": "a." * 1000}


def test_longest_key_is_read() -> None:
    assert load_toml(f"a{'.a' * 99} = 1")
