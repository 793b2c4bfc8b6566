"""A run whose shell left nothing behind."""

from pathlib import Path

from consumer.active_response.detached_run import Run, RunEnd
from tests.support.fakes.clock import TurnedClock


def test_run_without_any_file_was_interrupted(tmp_path: Path) -> None:
    clock = TurnedClock()
    run = Run(tmp_path, clock)
    assert run.is_lost
    assert run.wait(clock.monotonic() + 10) == RunEnd(None, overdue=False, stderr="")
