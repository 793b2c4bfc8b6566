"""The row about the agent's core, which uses much of the agent that is not public."""

from benchmarks.agent.core import core
from benchmarks.agent.options import Options


def test_core_processes_all_commands_without_a_connection() -> None:
    row = core(Options(scale=0.1, rounds=1))
    assert list(row.figures) == [f"{turn} commands a turn: CPU, µs a command" for turn in ("50", "1,000")]
    assert all(value is not None and value > 0 for value in row.figures.values())
    assert row.goals == []
