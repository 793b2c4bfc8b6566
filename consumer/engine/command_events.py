"""The lines of commands in the agent's log."""

from collections.abc import Sequence
from datetime import datetime
from sys import intern

from broker.system.command_log import CommandLine, CommandLog, command_line
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

    def stored(self, commands: Sequence[StoredCommand]) -> None:
        """Log the commands that have arrived."""
        now = self._log.moment()
        asked = [stored.command for stored in commands]
        self._log.add(*[command_line(now, "command_accepted", self._agent, it.id, it.type) for it in asked])

    def begins(self, stored: StoredCommand) -> None:
        """Note the begin of a command; it is logged with the next turn of the main loop."""
        command = stored.command
        self._begun[command.id] = self._clock.now()
        self._log.add(command_line(self._log.moment(), "command_running", self._agent, command.id, command.type))

    def committed(self, begun: Sequence[StoredCommand], ended: Sequence[StoredCommand]) -> None:
        """Log the commands that have ended."""
        now = self._log.moment()
        self._log.add(*[self._completed(now, it) for it in ended])

    def _completed(self, now: str, stored: StoredCommand) -> CommandLine:
        command, result = stored.command, stored.result.feedback if stored.result else None
        began, ended = self._begun.pop(command.id, None), result.finished_at if result else None
        duration_s = None if began is None or ended is None else max(0.0, round((ended - began).total_seconds(), 6))
        outcome, code = (result.outcome, result.code) if result else (None, None)
        self._unacked[command.id] = intern(command.type)
        return command_line(now, "command_completed", self._agent, command.id, command.type, outcome, code, duration_s)

    def acknowledged(self, command_ids: Sequence[str]) -> None:
        """Log the results whose acks have arrived; the type is known if this process has seen the result."""
        now = self._log.moment()
        self._log.add(
            *[command_line(now, "result_acked", self._agent, it, self._unacked.pop(it, None)) for it in command_ids]
        )

    def turn_ended(self) -> None:
        """Write what was noted."""
        self._log.flush()
