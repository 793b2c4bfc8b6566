"""Whether this process works as an agent; an upgrade is kept only once it does."""

from consumer.engine.round_trip import RoundTrip
from consumer.ports import ReadinessProblem

__all__ = ["Readiness"]


class Readiness:
    """Ready once the connection works, the store has committed, and the server has acknowledged a result.

    `problem` may be called from any thread; the round trip begins with its first call.
    """

    def __init__(self, connection_problem: ReadinessProblem, round_trip: RoundTrip) -> None:
        self.has_stored = False
        self.round_trip = round_trip
        self._connection_problem = connection_problem

    def problem(self) -> str | None:
        """Return why this process is not ready, as the part of a sentence after a colon, or None."""
        self.round_trip.request()
        problem = self._connection_problem()
        if problem is not None:
            return problem
        if not self.has_stored:
            return "it has stored nothing"
        return None if self.round_trip.is_done else "the server has acknowledged no result"
