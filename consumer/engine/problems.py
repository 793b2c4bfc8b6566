"""The agent's current problems: one sentence for each kind, shown in the status until it ends."""

from collections.abc import Mapping

from broker.contract.states import Problem
from broker.text import encodable

__all__ = [
    "Problems",
]


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

    def current(self, also: Mapping[Problem, str | None]) -> dict[Problem, str]:
        """Return the sentence of each current problem, these and those in `also`, in the order of the kinds."""
        known = {**self._current, **also}
        return {problem: sentence for problem in Problem if (sentence := known.get(problem))}
