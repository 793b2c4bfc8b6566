"""The lines of commands in the agent's log."""

from collections.abc import Sequence
from datetime import datetime
from sys import intern

from broker.contract.messages import Command
from broker.system.command_log import CommandLog
from consumer.engine.watch import AgentWatch
from consumer.ports import Clock, StoredCommand

__all__ = [
    "AgentCommandLog",
]


class AgentCommandLog(AgentWatch):
    """Logs each hop of each command, after its commit."""

    def __init__(self, agent: str, log: CommandLog, clock: Clock) -> None:
        self._agent, self._log, self._clock = agent, log, clock
        self._begun: dict[str, datetime] = {}
        self._unacked: dict[str, str] = {}

    def stored(self, commands: Sequence[Command]) -> None:
        """Log the commands that have arrived."""
        for command in commands:
            self._log.note("command_accepted", self._agent, command.id, command.type)

    def begins(self, stored: StoredCommand) -> None:
        """Note the begin of a command; it is logged with the next turn of the main loop."""
        command = stored.command
        self._begun[command.id] = self._clock.now()
        self._log.note("command_running", self._agent, command.id, command.type)

    def committed(self, begun: Sequence[StoredCommand], ended: Sequence[StoredCommand]) -> None:
        """Log the commands that have ended."""
        for stored in ended:
            self._note_completed(stored)

    def _note_completed(self, stored: StoredCommand) -> None:
        command, result = stored.command, stored.result.feedback if stored.result else None
        began, ended = self._begun.pop(command.id, None), result.finished_at if result else None
        duration_s = None if began is None or ended is None else max(0.0, round((ended - began).total_seconds(), 6))
        outcome, code = (result.outcome, result.code) if result else (None, None)
        self._log.note("command_completed", self._agent, command.id, command.type, outcome, code, duration_s)
        self._unacked[command.id] = intern(command.type)

    def acknowledged(self, command_ids: Sequence[str]) -> None:
        """Log the results whose acks have arrived; the type is known if this process has seen the result."""
        for command_id in command_ids:
            self._log.note("result_acked", self._agent, command_id, self._unacked.pop(command_id, None))

    def turn_ended(self) -> None:
        """Write what was noted."""
        self._log.flush()
