"""The lines of commands in the server's log."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from broker.contract.messages import Ack
from broker.contract.states import CommandState, ErrorCode
from broker.ledger.feedback import Completed
from broker.ledger.outbox import Claimed
from broker.ledger.turns import RecordedTurn, Said
from broker.server.watch import ServerWatch
from broker.system.command_log import CommandLog

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
        for agent, command in claimed.commands:
            if command.waited_s is not None:
                self._log.note("command_sent", agent, command.id, command.type)
        self._log.flush()

    def acked(self, agent: str, acks: Sequence[Ack]) -> None:
        """Note acks, which are logged after the results of their turn."""
        self._acked.append((agent, acks))

    def recorded(self, said: Mapping[str, Sequence[Said]], turn: RecordedTurn) -> None:
        """Log what was recorded, and then the acks for it."""
        acked, self._acked = self._acked, []
        types: dict[str, str | None] = {}
        for agent, recorded in turn.feedback:
            for reached in recorded.reached:
                is_accepted = reached.state is CommandState.ACCEPTED
                if is_accepted:
                    self._log.note("command_accepted", agent, reached.command_id, reached.type)
                else:
                    self._log.note("command_running", agent, reached.command_id, reached.type)
            for completed in recorded.completed:
                self._note_completed(agent, completed)
                types[completed.result.command_id or ""] = completed.type
        for agent, acks in acked:
            for ack in acks:
                self._log.note("result_acked", agent, ack.command_id, types.get(ack.command_id))
        self._log.flush()

    def _note_completed(self, agent: str, completed: Completed) -> None:
        result = completed.result
        began, ended = result.started_at, result.finished_at
        duration_s = None if began is None or ended is None else _seconds(began, ended)
        self._log.note(
            "command_completed",
            agent,
            result.command_id or "",
            completed.type,
            result.outcome,
            result.code,
            duration_s,
            completed.total_s,
        )


class ServerWatches(ServerWatch):
    """Passes on to each of several."""

    def __init__(self, *watches: ServerWatch) -> None:
        self._watches = watches

    def claimed(self, claimed: Claimed) -> None:
        """Pass it on."""
        for watch in self._watches:
            watch.claimed(claimed)

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


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, round((until - since).total_seconds(), 6))
