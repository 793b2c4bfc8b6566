"""Polling for a condition, with a timeout."""

import time
from collections.abc import Callable
from typing import Any

import pytest


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Poll until the condition holds; fail with `what` and the last value seen."""
    value = holds_within(timeout_s, condition)
    if not value:
        pytest.fail(f"timed out after {timeout_s:g} s waiting for {what}; last value: {value!r}")
    return value


def holds_within(timeout_s: float, condition: Callable[[], Any]) -> Any:
    """Poll until the condition holds, or the time is over; return its last value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() <= deadline:
        time.sleep(0.02)
    return value
