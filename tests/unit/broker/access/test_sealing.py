"""Answers that are kept for repeated requests can be read only with the Idempotency-Key of their request."""

import base64
from collections.abc import Callable

import pytest

from broker.access.sealing import opened_answer, sealed_answer
from broker.errors import LedgerError
from tests.support.errors import raises_code

ANSWER = b'{"token":"acm-secret"}'


def test_answer_is_readable_only_with_its_key() -> None:
    sealed = sealed_answer("key", ANSWER)
    assert b"acm-secret" not in base64.b64decode(sealed)
    assert opened_answer("key", sealed) == ANSWER
    with raises_code(LedgerError, "answer_damaged"):
        opened_answer("other", sealed)


@pytest.mark.parametrize("change", [lambda it: it[:-4], lambda it: "!" + it, lambda it: "", lambda it: it[::-1]])
def test_changed_answer_is_not_returned(change: Callable[[str], str]) -> None:
    with raises_code(LedgerError, "answer_damaged"):
        opened_answer("key", change(sealed_answer("key", ANSWER)))
