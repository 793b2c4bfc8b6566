"""What a call of the benchmark chooses."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """`scale` times as many commands; `rounds` of each program, interleaved; `prefix` is an installation to measure."""

    scale: float = 1.0
    rounds: int = 5
    prefix: Path | None = None

    def scaled(self, count: int) -> int:
        """Return a count at this scale."""
        return max(1, round(count * self.scale))
