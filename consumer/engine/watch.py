"""Notified of the agent's work, so that it can be counted."""

from collections.abc import Sequence

from consumer.ports import StoredCommand

__all__ = [
    "AgentWatch",
]


class AgentWatch:
    """Notified of what the agent has done, once it is committed; ignores it."""

    def committed(self, begun: Sequence[StoredCommand], ended: Sequence[StoredCommand]) -> None:
        """These commands were begun, and these have their results."""

    def result_sent(self, *, again: bool) -> None:
        """A result was given to the connection, for the first time or again."""
