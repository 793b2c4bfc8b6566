"""What is wrong with the agent now: one sentence for each kind of problem, told until it has ended."""

from collections.abc import Mapping
from enum import Enum, auto

__all__ = [
    "Problem",
    "Problems",
]


class Problem(Enum):
    """The kinds, in the order in which they are told: what stops commands comes first."""

    STORE_FULL = auto()
    STORE_DAMAGED = auto()
    PLUG_IN = auto()
    REVERSAL = auto()
    RENEWAL = auto()
    MESSAGE = auto()


class Problems:
    """Keeps the newest sentence of each kind. One problem neither hides another nor ends with it."""

    def __init__(self) -> None:
        self._told: dict[Problem, str] = {}

    def report(self, problem: Problem, sentence: str | None) -> None:
        """Keep what is wrong; None ends the problem."""
        if sentence is None:
            self._told.pop(problem, None)
        else:
            self._told[problem] = sentence

    def text(self, also: Mapping[Problem, str | None]) -> str | None:
        """Return all that is wrong, with what somebody else knows, as one text; None where nothing is."""
        told = {**self._told, **also}
        return " ".join(sentence for problem in Problem if (sentence := told.get(problem))) or None
