"""Whether this process has done an agent's work; an upgrade is kept only once it has."""

from consumer.ports import ReadinessProblem

__all__ = ["Readiness"]


class Readiness:
    """Ready once the connection works and the store has committed. `problem` may be called from any thread."""

    def __init__(self, connection_problem: ReadinessProblem) -> None:
        self.has_stored = False
        self._connection_problem = connection_problem

    def problem(self) -> str | None:
        """Return what is not proved yet, as the end of a sentence after a colon, or None."""
        return self._connection_problem() or (None if self.has_stored else "it has stored nothing")
