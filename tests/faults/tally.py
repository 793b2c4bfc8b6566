"""What a loop of faults did: how often, and what it found."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Budget", "Loop", "Tally"]


@dataclass
class Tally:
    """Counts by what was counted, and one sentence for each violation of a promise."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """How long and how often a loop may run, and its source of random choices."""

    until: float
    max_rounds: int
    random: random.Random

    @classmethod
    def of(cls, seconds: float, max_rounds: int, seed: str) -> "Budget":
        """Begin a budget of so many seconds from now."""
        return cls(time.monotonic() + seconds, max_rounds, random.Random(seed))

    def rounds(self, reserve_s: float = 0.0) -> Iterator[int]:
        """Yield 0, 1, 2 … until the rounds are over, or the time but for `reserve_s`; one round at least."""
        for number in range(self.max_rounds):
            if number and time.monotonic() >= self.until - reserve_s:
                return
            yield number


Loop = Callable[[Budget], Tally]
