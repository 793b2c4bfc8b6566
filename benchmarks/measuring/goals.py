"""Goals: a measured value, its limit, and whether it is met."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Goal", "all_met"]


@dataclass(frozen=True)
class Goal:
    """`measured` is to be at least `limit` or, if `is_ceiling`, at most; None if it could not be measured: not met.

    `reach` is what should be possible beyond it, for people.
    """

    name: str
    measured: float | None
    limit: float
    is_ceiling: bool = False
    reach: float | None = None
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the goal is met."""
        if self.measured is None:
            return False
        return self.measured <= self.limit if self.is_ceiling else self.measured >= self.limit

    @property
    def wanted(self) -> str:
        """The limit as a text."""
        reach = "" if self.reach is None else f" (reach {self.reach:g})"
        return f"{'≤' if self.is_ceiling else '≥'} {self.limit:g}{' ' if self.unit else ''}{self.unit}{reach}"

    def to_json(self) -> dict[str, Any]:
        """Return the goal as members of JSON."""
        return {
            "name": self.name,
            "goal": self.wanted,
            "measured": self.measured,
            "limit": self.limit,
            "is_ceiling": self.is_ceiling,
            "unit": self.unit,
            "met": self.is_met,
        }


def all_met(goals: list[Goal]) -> bool:
    """Whether all goals are met."""
    return all(goal.is_met for goal in goals)
