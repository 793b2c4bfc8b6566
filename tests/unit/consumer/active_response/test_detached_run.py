"""A run whose shell left nothing behind."""

from pathlib import Path

import pytest

from consumer.active_response.detached_run import Run, RunEnd
from consumer.errors import StoreError
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


def test_run_without_any_file_was_interrupted(tmp_path: Path) -> None:
    clock = TurnedClock()
    run = Run(tmp_path, clock)
    assert run.is_lost
    assert run.wait(clock.monotonic() + 10) == RunEnd(None, overdue=False, stderr="")


@pytest.mark.parametrize("name", ["status", "lock"])
def test_run_that_cannot_be_read_is_neither_lost_nor_ended(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()  # a read that fails
    clock = TurnedClock()
    run = Run(tmp_path, clock)
    with raises_code(StoreError, "run_unreadable"):
        _ = run.is_lost
    with raises_code(StoreError, "run_unreadable"):
        run.wait(clock.monotonic() + 10)
