"""Notified of the agent's work, so that it can be counted and logged."""

from collections.abc import Sequence

from consumer.ports import StoredCommand

__all__ = [
    "AgentWatch",
    "AgentWatches",
]


class AgentWatch:
    """Notified of what the agent has done, once it is committed; ignores it."""

    def stored(self, commands: Sequence[StoredCommand]) -> None:
        """These commands have arrived."""

    def begins(self, stored: StoredCommand) -> None:
        """A command begins, whose commit as begun is done; called by the thread that runs it."""

    def committed(self, begun: Sequence[StoredCommand], ended: Sequence[StoredCommand]) -> None:
        """These commands were begun, and these have their results."""

    def result_sent(self, *, again: bool) -> None:
        """A result was given to the connection, for the first time or again."""

    def acknowledged(self, command_ids: Sequence[str]) -> None:
        """The results of these commands were acknowledged, and are deleted."""

    def refused(self, code: str) -> None:
        """A message or a command was refused, before its commit."""

    def gap_reported(self) -> None:
        """The server was asked to send again, from the first command that is missing."""

    def turn_ended(self) -> None:
        """A turn of the main loop has ended."""


class AgentWatches(AgentWatch):
    """Passes on to each of several."""

    def __init__(self, *watches: AgentWatch) -> None:
        self._watches = watches

    def stored(self, commands: Sequence[StoredCommand]) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.stored(commands)

    def begins(self, stored: StoredCommand) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.begins(stored)

    def committed(self, begun: Sequence[StoredCommand], ended: Sequence[StoredCommand]) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.committed(begun, ended)

    def result_sent(self, *, again: bool) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.result_sent(again=again)

    def acknowledged(self, command_ids: Sequence[str]) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.acknowledged(command_ids)

    def refused(self, code: str) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.refused(code)

    def gap_reported(self) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.gap_reported()

    def turn_ended(self) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.turn_ended()
