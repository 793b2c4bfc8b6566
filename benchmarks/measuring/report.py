"""How a benchmark reports: tables for people, JSON in build/, and the exit code."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring.goals import Goal, all_met

__all__ = ["Row", "print_goals", "print_row", "save"]

OUTPUT = Path("build")


@dataclass
class Row:
    """The outcome of one row of a benchmark: figures by name, and goals. `detail` is only for the JSON."""

    title: str
    figures: dict[str, float | None] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)


def print_row(console: Console, row: Row) -> None:
    """Print the figures of a row."""
    table = Table("figure", "measured")
    for name, value in row.figures.items():
        table.add_row(name, _shown(value))
    console.print(f"\n{row.title}", style="bold")
    console.print(table)


def save(row: Row, name: str, benchmark: str, conditions: dict[str, Any]) -> Path:
    """Write a row into build/`benchmark`.json and return that; it replaces the row of this name alone."""
    OUTPUT.mkdir(exist_ok=True)
    path = OUTPUT / f"{benchmark}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
    goals = [goal.to_json() for goal in row.goals]
    new = {"title": row.title, **conditions, "figures": row.figures, "goals": goals, **row.detail}
    path.write_text(json.dumps({"rows": kept | {name: new}}, indent=2) + "\n", encoding="utf-8")
    return path


def print_goals(console: Console, rows: Sequence[Row]) -> int:
    """Print all goals, and return the exit code: 1 if one is missed."""
    goals = [goal for row in rows for goal in row.goals]
    table = Table("goal", "wanted", "measured", "met")
    for goal in goals:
        met = "yes" if goal.is_met else "[red]NO[/red]"
        table.add_row(goal.name, goal.wanted, _shown(goal.measured), met)
    console.print("\nGoals" if goals else "\nThese rows have no goals.", style="bold")
    if goals:
        console.print(table)
    return 0 if all_met(goals) else 1


def _shown(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
