"""Parsing of enrolment tokens."""

import pytest

from broker.contract.enrolment_token import EnrolmentToken, InvalidToken, fingerprint_of

SECRET = "kJ4c0vQm2wTn7sYb-_aZpA"
TOKEN = EnrolmentToken(SECRET, fingerprint_of(b"certificate"))


def test_token_text_is_parsed_back() -> None:
    assert EnrolmentToken.parse(f" {TOKEN.text}\n") == TOKEN


def test_token_repr_and_hash_do_not_contain_the_secret() -> None:
    assert SECRET not in repr(TOKEN)
    assert SECRET not in TOKEN.secret_hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        TOKEN.text[:-1],
        TOKEN.text + "0",
        TOKEN.text.replace("acm1", "acm2"),
        TOKEN.text.upper(),
        f"acm1.short.{TOKEN.fingerprint}",
        TOKEN.text.replace("acm1.k", "acm1.\N{KELVIN SIGN}"),
    ],
)
def test_invalid_token_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        EnrolmentToken.parse(text)
    assert SECRET[1:] not in str(caught.value)
