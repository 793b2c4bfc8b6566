"""What the benchmarks share: goals, reports, and ledgers that are filled quickly."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.measuring import report
from benchmarks.measuring.commands import agent_names, command_id
from benchmarks.measuring.goals import Goal
from benchmarks.measuring.ledger_rows import NO_OP, add_accepted, add_completed
from benchmarks.measuring.percentiles import percentile
from benchmarks.measuring.processes import cpu_s, peak_mb, private_mb, rss_mb, switches
from benchmarks.measuring.report import Row, save
from benchmarks.measuring.running import run_rows
from broker.app.factories import open_ledger
from broker.ledger.tables import CommandState


@pytest.mark.parametrize(
    ("measured", "limit", "is_ceiling", "is_met"),
    [
        (6.0, 6, False, True),
        (5.9, 6, False, False),
        (2.0, 2, True, True),
        (2.1, 2, True, False),
        (None, 6, False, False),
        (None, 6, True, False),
    ],
)
def test_goal_is_met_up_to_its_limit(measured: float | None, limit: float, is_ceiling: bool, is_met: bool) -> None:
    assert Goal("rate", measured, limit, is_ceiling).is_met is is_met


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "OUTPUT", tmp_path / "build")
    return tmp_path / "build" / "bench.json"


@pytest.mark.parametrize(("measured", "code"), [(7.0, 0), (5.0, 1), (None, 1)])
def test_missed_goal_is_the_exit_code(output: Path, measured: float | None, code: int) -> None:
    row = Row("a title", {"rate": measured}, [Goal("rate", measured, 6)])
    assert run_rows("bench", {"a row": lambda: row}, None, {"scale": 1}) == code
    (goal,) = json.loads(output.read_text())["rows"]["a row"]["goals"]
    assert (goal["measured"], goal["met"], goal["goal"]) == (measured, code == 0, "≥ 6")


@pytest.mark.parametrize("error", [TimeoutError("Nothing came."), AssertionError("The server has ended.")])
def test_row_that_fails_misses_its_goals_and_stops_no_other(output: Path, error: Exception) -> None:
    def fails() -> Row:
        raise error

    rows = {"first": fails, "second": lambda: Row("second", {}, [Goal("rate", 7.0, 6)])}
    assert run_rows("bench", rows, None, {}) == 1
    first, second = json.loads(output.read_text())["rows"].values()
    assert (first["error"], first["goals"][0]["met"], second["goals"][0]["met"]) == (str(error), False, True)


def test_row_that_was_run_is_kept_when_the_next_one_is_interrupted(output: Path) -> None:
    def is_interrupted() -> Row:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rows("bench", {"first": lambda: Row("a title"), "second": is_interrupted}, None, {})
    assert list(json.loads(output.read_text())["rows"]) == ["first"]


def test_rows_replace_those_of_the_same_name_alone(output: Path) -> None:
    for name, value in (("one", 1.0), ("two", 2.0), ("one", 3.0)):
        save(Row(f"{value:g} agents", {"rate": value}), name, "bench", {"scale": value})
    rows = json.loads(output.read_text())["rows"]
    assert {name: (row["title"], row["figures"]["rate"], row["scale"]) for name, row in rows.items()} == {
        "one": ("3 agents", 3.0, 3.0),
        "two": ("2 agents", 2.0, 2.0),
    }


@pytest.mark.parametrize(("count", "expected"), [(1, 1.0), (2, 2.0), (100, 99.0), (1000, 990.0)])
def test_percentile_is_one_of_the_values(count: int, expected: float) -> None:
    assert percentile([float(number) for number in range(count, 0, -1)], 99) == expected


def test_row_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit, match="there are: one"):
        run_rows("bench", {"one": lambda: Row("one")}, "two", {})


def test_copied_rows_are_as_if_the_server_had_written_them(ledger_url: str) -> None:
    names = agent_names(3)
    with open_ledger(ledger_url) as ledger:
        add_completed(ledger, names, 1, 4)
        add_completed(ledger, names, 5, 7)
        rows = ledger.commands()
        assert {row.command.id for row in rows} >= {command_id(names[0], 3), command_id(names[1], 2)}
        assert {row.state for row in rows} == {CommandState.COMPLETED}
        assert all(row.result and row.result["command_id"] == row.command.id for row in rows)
        assert ledger.damaged_rows() == []
        assert [row.name for row in ledger.agents()] == names


def test_accepted_rows_are_open_and_not_due(ledger_url: str) -> None:
    names = agent_names(2)
    with open_ledger(ledger_url) as ledger:
        epoch = add_accepted(ledger, names, 3)
        assert ledger.due_agents("", 9) == []
        assert [row.open_commands for row in ledger.agents()] == [3, 3]
        assert ledger.add_command(names[0], NO_OP).sequence.__dict__ == {"epoch": epoch, "number": 4}


def test_own_process_has_memory_and_time() -> None:
    pid = os.getpid()
    assert 0 < private_mb(pid) <= rss_mb(pid) <= peak_mb(pid)
    assert cpu_s(pid) > 0
    assert switches(pid) >= 0
