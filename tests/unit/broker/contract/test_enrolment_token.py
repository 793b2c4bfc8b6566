"""Enrolment tokens as they are written and read."""

import pytest

from broker.contract.enrolment_token import EnrolmentToken, InvalidToken, fingerprint_of

SECRET = "kJ4c0vQm2wTn7sYb-_aZpA"
TOKEN = EnrolmentToken(SECRET, fingerprint_of(b"certificate"))


def test_a_token_is_read_as_it_was_written() -> None:
    assert EnrolmentToken.parse(f" {TOKEN.text}\n") == TOKEN


def test_a_token_shown_in_a_log_does_not_hold_its_secret() -> None:
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
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidToken) as caught:
        EnrolmentToken.parse(text)
    assert SECRET[1:] not in str(caught.value)
