"""The agent's current problems: one sentence for each kind, shown in the status until it ends."""

from collections.abc import Mapping
from enum import Enum, auto

from broker.text import encodable

__all__ = [
    "Problem",
    "Problems",
]


class Problem(Enum):
    """The kinds of problems, in the order in which they are shown: those that stop commands come first."""

    STORE_FULL = auto()
    STORE_LOCKED = auto()
    STORE_DAMAGED = auto()
    NO_INODES = auto()
    STORE_ROW = auto()
    HANDLER = auto()
    CONNECTION = auto()
    SERVICE = auto()
    PLUG_IN = auto()
    UPGRADE = auto()
    ENROLMENT = auto()
    REVERSAL = auto()
    RENEWAL = auto()
    LEFTOVER = auto()
    MESSAGE = auto()


class Problems:
    """Keeps the newest sentence of each kind; kinds do not affect each other."""

    def __init__(self) -> None:
        self._current: dict[Problem, str] = {}

    def report(self, problem: Problem, sentence: str | None) -> None:
        """Set the current problem of this kind; None ends it."""
        if sentence is None:
            self._current.pop(problem, None)
        else:
            self._current[problem] = encodable(sentence)

    def text(self, also: Mapping[Problem, str | None]) -> str | None:
        """Return all problems, these and those in `also`, as one text, or None."""
        current = {**self._current, **also}
        return " ".join(sentence for problem in Problem if (sentence := current.get(problem))) or None
