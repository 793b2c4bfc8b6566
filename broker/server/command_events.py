"""The lines of commands in the server's log."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from broker.contract.messages import Ack
from broker.contract.states import CommandState, ErrorCode
from broker.contract.trace_context import TraceContext
from broker.ledger.feedback import Completed, Reached
from broker.ledger.outbox import Claimed
from broker.ledger.turns import RecordedTurn, Said
from broker.server.watch import ServerWatch
from broker.system.command_log import CommandLine, CommandLog, command_line

__all__ = [
    "ServerCommandLog",
    "ServerWatches",
]


class ServerCommandLog(ServerWatch):
    """Logs each hop of each command, after its commit."""

    def __init__(self, log: CommandLog) -> None:
        self._log = log
        self._acked: list[tuple[str, Sequence[Ack]]] = []

    def claimed(self, claimed: Claimed) -> None:
        """Log the commands that are sent for the first time."""
        now = self._log.moment()
        first = [(agent, it) for agent, it in claimed.commands if it.waited_s is not None]
        self._log.add(*[command_line(now, "command_sent", agent, it.id, it.type) for agent, it in first])
        self._log.flush()

    def acked(self, agent: str, acks: Sequence[Ack]) -> None:
        """Note acks, which are logged after the results of their turn."""
        self._acked.append((agent, acks))

    def recorded(self, said: Mapping[str, Sequence[Said]], turn: RecordedTurn) -> None:
        """Log what was recorded, and then the acks for it."""
        now = self._log.moment()
        for agent, recorded in turn.feedback:
            self._log.add(*[_reached(now, agent, it) for it in recorded.reached])
            self._log.add(*[_completed(now, agent, it) for it in recorded.completed])
        self._note_acks(now, turn)
        self._log.flush()

    def _note_acks(self, now: str, turn: RecordedTurn) -> None:
        acked, self._acked = self._acked, []
        completed = (it for _, recorded in turn.feedback for it in recorded.completed)
        types = {it.result.command_id: it.type for it in completed}
        for agent, acks in acked:
            found = ((it.command_id, types.get(it.command_id)) for it in acks)
            self._log.add(*[command_line(now, "result_acked", agent, name, kind) for name, kind in found])


class ServerWatches(ServerWatch):
    """Passes on to each of several."""

    def __init__(self, *watches: ServerWatch) -> None:
        self._watches = watches

    def claimed(self, claimed: Claimed) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.claimed(claimed)

    def arrived(self, agent: str, said: Sequence[Said], trace: TraceContext) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.arrived(agent, said, trace)

    def recording(self) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.recording()

    def acked(self, agent: str, acks: Sequence[Ack]) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.acked(agent, acks)

    def recorded(self, said: Mapping[str, Sequence[Said]], turn: RecordedTurn) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.recorded(said, turn)

    def completed_by_server(self, code: ErrorCode, count: int = 1) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.completed_by_server(code, count)

    def refused(self, reason: str, count: int = 1) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.refused(reason, count)

    def turn_ended(self, seconds: float, *, failed: bool) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.turn_ended(seconds, failed=failed)


def _reached(now: str, agent: str, reached: Reached) -> CommandLine:
    if reached.state is CommandState.ACCEPTED:
        return command_line(now, "command_accepted", agent, reached.command_id, reached.type)
    return command_line(now, "command_running", agent, reached.command_id, reached.type)


def _completed(now: str, agent: str, completed: Completed) -> CommandLine:
    result = completed.result
    began, finished = result.started_at, result.finished_at
    duration_s = None if began is None or finished is None else _seconds(began, finished)
    ended = (result.outcome, result.code, duration_s, completed.total_s)
    return command_line(now, "command_completed", agent, result.command_id or "", completed.type, *ended)


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, round((until - since).total_seconds(), 6))
