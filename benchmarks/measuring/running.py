"""Runs the rows of a benchmark, one after the other."""

import resource
import traceback
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import structlog
from rich.console import Console

from benchmarks.measuring.goals import Goal
from benchmarks.measuring.report import Row, print_goals, print_row, save

__all__ = ["prepare_process", "run_rows", "selected"]

_COLUMNS = 100


def run_rows(name: str, rows: Mapping[str, Callable[[], Row]], chosen: str | None, conditions: dict[str, Any]) -> int:
    """Run the rows in `chosen`, by default all; write them into build/`name`.json, and return the exit code."""
    console, done = Console(width=_COLUMNS), []
    for row_name in selected(chosen, rows):
        began = monotonic()
        row = _run(row_name, rows[row_name])
        print_row(console, row)
        path = save(row, row_name, name, conditions)
        console.print(f"{row_name}: {monotonic() - began:.0f} s; {path}", style="dim")
        done.append(row)
    return print_goals(console, done)


def selected(names: str | None, known: Mapping[str, object]) -> list[str]:
    """Return the names in a list with commas, by default all; raises SystemExit for an unknown one."""
    chosen = list(known) if names is None else names.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"There is no row {unknown[0]}; there are: {', '.join(known)}.")
    return chosen


def _run(name: str, row: Callable[[], Row]) -> Row:
    try:
        return row()
    except Exception as error:  # what has collapsed misses the goals of its row, but those of no other
        traceback.print_exc()
        return Row(name, {"completed": None}, [Goal(f"{name}: completed", None, 1)], {"error": str(error)})


def prepare_process() -> None:
    """Turn logs off, and allow the broker, which inherits the limit, a file for each agent."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
