"""What a call of the benchmark chooses."""

from dataclasses import dataclass

from benchmarks.fleet.driver import STATUS_PAUSE_S

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """`scale` times as many agents (commands, where the agents are the point); `rounds` of each side, interleaved.

    Without `naive` that side is not run, and its goals are not judged. `status_pause_s` is how long an agent waits
    before it publishes a status of which only counters have moved.
    """

    scale: float = 1.0
    rounds: int = 3
    naive: bool = True
    status_pause_s: float = STATUS_PAUSE_S

    def scaled(self, count: int) -> int:
        """Return a count at this scale."""
        return max(1, round(count * self.scale))
