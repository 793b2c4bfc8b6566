"""Expecting errors by type and code, so that a better sentence breaks no test."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.errors import CodedError


@contextmanager
def raises_code(kind: type[CodedError], code: str) -> Iterator[pytest.ExceptionInfo[CodedError]]:
    """Expect an error of this type with this code."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"
