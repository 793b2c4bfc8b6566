"""Reversals that cannot be recorded, that raise, and that an earlier process had started."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.active_response.records import ResponseRecord, ResponseRecords, Reversal
from consumer.active_response.reversals import Reversals
from consumer.active_response.script_runner import ScriptRunner
from consumer.settings import ActiveResponseConfig, Confinement
from consumer.system.clock import Boot
from consumer.system.leftovers import Leftovers
from tests.support.fakes.clock import TurnedClock

KEYS = ("192.0.2.1",)


class Steps:
    """Calls a function at each step."""

    def __init__(self, reached: Callable[[str], None]) -> None:
        self.reached = reached


class World:
    """The reversals of a script that the allow-list does not have, run on the test's own thread."""

    def __init__(
        self,
        directory: Path,
        reached: Callable[[str], None],
        config: ActiveResponseConfig | None = None,
    ) -> None:
        self.clock = TurnedClock()
        self.runs = directory / "runs"
        self.records = ResponseRecords(directory / "records")
        runner = ScriptRunner(config or ActiveResponseConfig(), directory, self.clock, Confinement())
        self.reversals = Reversals(
            self.records,
            runner,
            self.runs,
            self.clock,
            Steps(reached),
            lambda work: work(),
            lambda: None,
            Boot("boot", self.clock.monotonic),
            Leftovers(),
        )

    def add(self, run: str | None = None) -> None:
        now = self.clock.now()
        reversal = Reversal(now, {"version": 1, "origin": {}, "parameters": {}}, now, run)
        self.records.save(ResponseRecord("gone", "gone.sh", KEYS, "a", "active", now, "boot", True, reversal))


def test_reversal_that_cannot_be_recorded_is_retried_later(tmp_path: Path) -> None:
    world = World(tmp_path, lambda step: None)
    world.add()
    shutil.rmtree(tmp_path / "records")
    with capture_logs() as logs:
        world.reversals.step()
    assert [entry["event"] for entry in logs] == ["reversal_not_recorded"]
    assert world.reversals.next_due() == world.clock.monotonic() + 5


def test_reversal_that_the_agent_could_not_start_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "gone.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    (tmp_path / "allow-list").write_text("gone - gone.sh - 0\n")
    world = World(
        tmp_path, lambda step: None, ActiveResponseConfig(str(tmp_path / "scripts"), str(tmp_path / "allow-list"))
    )
    world.add()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        for _ in range(10):
            world.reversals.step()
            world.clock.turn(1000.0)
    record = world.records.find("gone.sh", KEYS)
    assert record is not None
    assert record.reversal is not None
    assert "The agent could not start the script: its launcher /nowhere/python" in (record.reversal.failure or "")
    world.reversals.step()
    assert world.records.pending() == ()


def test_reversals_wait_for_a_thread(tmp_path: Path) -> None:
    def no_thread(work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    world = World(tmp_path, lambda step: None)
    world.add()
    with_threads, world.reversals._spawn = world.reversals._spawn, no_thread
    world.reversals.step()
    assert world.reversals.next_due() == world.clock.monotonic() + 5
    world.reversals._spawn = with_threads
    world.clock.turn(5)
    world.reversals.step()
    record = world.records.find("gone.sh", KEYS)
    assert record is not None
    assert record.reversal is not None
    assert record.reversal.attempts == 1


def test_reversals_go_on_after_an_unforeseen_error(tmp_path: Path) -> None:
    def fail(step: str) -> None:
        raise RuntimeError(step)

    world = World(tmp_path, fail)
    world.add()
    with capture_logs() as logs:
        world.reversals.step()
    assert [entry["event"] for entry in logs] == ["reversals_failed"]
    assert world.reversals.next_due() == world.clock.monotonic() + 5


@pytest.mark.parametrize("run", ["begun", None])
def test_only_a_reversal_that_an_earlier_process_started_is_finished(tmp_path: Path, run: str | None) -> None:
    world = World(tmp_path, lambda step: None)
    world.add(run)
    world.reversals.finish_begun()
    record = world.records.find("gone.sh", KEYS)
    assert record is not None
    assert record.reversal is not None
    assert record.reversal.attempts == (1 if run else 0)


def test_runs_that_no_reversal_needs_are_removed(tmp_path: Path) -> None:
    world = World(tmp_path, lambda step: None)
    world.add("begun")
    for name in ("begun", "old"):
        (world.runs / name).mkdir(parents=True)
    world.reversals.recover()
    assert [run.name for run in world.runs.iterdir()] == ["begun"]
