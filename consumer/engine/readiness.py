"""Whether this process works as an agent; an upgrade is kept only once it does."""

from consumer.ports import ReadinessProblem

__all__ = ["Readiness"]


class Readiness:
    """Ready once the connection works and the store has committed. `problem` may be called from any thread."""

    def __init__(self, connection_problem: ReadinessProblem) -> None:
        self.has_stored = False
        self._connection_problem = connection_problem

    def problem(self) -> str | None:
        """Return why this process is not ready, as the part of a sentence after a colon, or None."""
        return self._connection_problem() or (None if self.has_stored else "it has stored nothing")
