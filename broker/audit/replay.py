"""Replays the journal's entries: the life of each command, checked step by step against the ledger."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from broker.audit.findings import Findings, LedgerSide, describe
from broker.contract.journal import Accepted, JournalEntry, Opened, Reported
from broker.contract.messages import SequenceNumber
from broker.ledger.tables import CommandState

__all__ = [
    "Replay",
    "order",
    "replay",
]


@dataclass
class CommandLife:
    """A command's life as the journal records it. `is_cut`: it began before the first entry that is kept."""

    is_cut: bool = False
    runs_on: str | None = None
    reported: Reported | None = None
    is_deleted: bool = False


@dataclass
class Replay:
    """The state after all entries; `numbered` has sequence numbers with their entries' numbers, in journal order."""

    lives: dict[str, CommandLife] = field(default_factory=dict)
    numbered: list[tuple[SequenceNumber, int]] = field(default_factory=list)
    opened: Opened | None = None
    unsigned: int = 0
    completed_by_server: int = 0


@dataclass(frozen=True)
class _Position:
    """The entry that is replayed."""

    number: int
    at: datetime


def replay(entries: Iterable[JournalEntry], side: LedgerSide, findings: Findings) -> Replay:
    """Return the state after all entries; report each step that is impossible or contradicts the ledger."""
    replayer = _Replayer(side, findings)
    for entry in entries:
        replayer.play(entry)
    return replayer.result


class _Replayer:
    def __init__(self, side: LedgerSide, findings: Findings) -> None:
        self._side = side
        self._findings = findings
        self.result = Replay()

    def play(self, entry: JournalEntry) -> None:
        position = _Position(entry.number, entry.at)
        self._open(position, entry.opened)
        for accepted in entry.accepted:
            self._accept(position, accepted)
        for command_id in entry.begun:
            self._begin(position, command_id, entry.incarnation)
        for command_id in entry.resumed:
            self._resume(position, command_id, entry.incarnation)
        for reported in entry.reported:
            self._report(position, reported)
        for command_id in entry.deleted:
            self._delete(position, command_id)

    def _open(self, position: _Position, opened: Opened | None) -> None:
        if position.number == 1:
            self.result.opened = opened
            if opened is None:
                self._add("no_opening", position, None, "the journal's first entry is not an opening")
            elif opened.message:
                at = f"{position.at:%Y-%m-%d %H:%M:%S} UTC"
                self._findings.add_note(f"A new journal was begun at {at}: {opened.message}")
        elif opened is not None:
            self._add("found_changed", position, None, f"the agent found its journal changed: {opened.message}")

    def _accept(self, position: _Position, accepted: Accepted) -> None:
        before = self.result.lives.get(accepted.id)
        if before and not (before.is_deleted and accepted.sequence is None):
            self._add("accepted_twice", position, accepted.id, "the command was accepted a second time")
            return
        self.result.lives[accepted.id] = CommandLife()
        self._check_accepted(position, accepted)
        if accepted.sequence is not None:
            numbered = self.result.numbered
            if numbered and order(accepted.sequence) <= order(numbered[-1][0]):
                reason = f"the command has {describe(accepted.sequence)}, after {describe(numbered[-1][0])}"
                self._add("out_of_sequence", position, accepted.id, reason)
            numbered.append((accepted.sequence, position.number))

    def _check_accepted(self, position: _Position, accepted: Accepted) -> None:
        """Report how an accepted command differs from the one that the ledger sent."""
        known, sequence = self._side.known.get(accepted.id), accepted.sequence
        claim = f"a {accepted.type} was accepted"
        if known is None and sequence is None:
            self.result.unsigned += 1
            if not self._side.accepts_unsigned:
                reason = f"{claim} without a number; the ledger does not know it"
                self._add("unknown_command", position, accepted.id, reason)
        elif known is None:
            self._add("unknown_command", position, accepted.id, f"{claim}; the ledger does not know it")
        elif known.agent != self._side.agent:
            reason = f"{claim}; the ledger sent the command to {known.agent}"
            self._add("other_agent", position, accepted.id, reason)
        elif known.sequence != sequence and (sequence is None or known.sequence.epoch <= sequence.epoch):
            given = f"as {describe(sequence)}" if sequence else "without a number"
            reason = f"{claim} {given}; the ledger sent it as {describe(known.sequence)}"
            self._add("other_sequence", position, accepted.id, reason)
        elif known.sha256 != accepted.sha256:
            reason = f"{claim} with the content {accepted.sha256}; the ledger sent {known.sha256}"
            self._add("other_content", position, accepted.id, reason)

    def _begin(self, position: _Position, command_id: str, incarnation: str | None) -> None:
        life = self._life(position, command_id)
        if life.runs_on is not None or life.reported is not None:
            state = "was completed" if life.reported else "had begun"
            self._add("begun_twice", position, command_id, f"the command began although it {state} already")
        life.runs_on = incarnation or ""

    def _resume(self, position: _Position, command_id: str, incarnation: str | None) -> None:
        life = self._life(position, command_id)
        if life.reported is not None or not (life.is_cut or life.runs_on is not None):
            self._add("resumed_idle", position, command_id, "the command ran again, but it was not running")
        elif life.runs_on == incarnation:
            reason = "the command ran again although the agent had not restarted"
            self._add("resumed_without_restart", position, command_id, reason)
        life.runs_on = incarnation or ""

    def _report(self, position: _Position, reported: Reported) -> None:
        life = self._life(position, reported.id)
        if life.reported is not None:
            self._add("second_result", position, reported.id, "the journal has a second result of the command")
        life.reported = reported
        known = self._side.known.get(reported.id)
        if known is None or known.state is not CommandState.COMPLETED:
            return  # a deletion will show whether the ledger should have it
        if known.is_completed_by_server:
            self.result.completed_by_server += 1
        elif known.digest != reported.digest:
            stored = ", and stored that one as unmatched" if self._is_unmatched(reported) else ""
            reason = f"the result {reported.digest} was reported; the ledger holds {known.digest}{stored}"
            self._add("other_result", position, reported.id, reason)
        elif known.outcome not in (None, reported.outcome):
            reason = f"the outcome {reported.outcome} was reported; the ledger holds {known.outcome}"
            self._add("other_outcome", position, reported.id, reason)

    def _delete(self, position: _Position, command_id: str) -> None:
        life = self._life(position, command_id)
        if life.is_deleted:
            self._add("deleted_twice", position, command_id, "the command was deleted a second time")
        elif life.reported is None and not life.is_cut:
            self._add("deleted_without_result", position, command_id, "the command was deleted without a result")
        elif not self._is_committed(command_id, life.reported):
            reason = "the command was deleted; the ledger does not hold its result"
            self._add("deleted_uncommitted", position, command_id, reason)
        life.is_deleted = True

    def _is_committed(self, command_id: str, reported: Reported | None) -> bool:
        known = self._side.known.get(command_id)
        if reported is None:
            completed = known is not None and known.state is CommandState.COMPLETED
            return completed or any(command_id == unmatched for unmatched, _ in self._side.unmatched)
        return (known is not None and known.digest == reported.digest) or self._is_unmatched(reported)

    def _is_unmatched(self, reported: Reported) -> bool:
        return (reported.id, reported.digest) in self._side.unmatched

    def _life(self, position: _Position, command_id: str) -> CommandLife:
        """Return a command's life, which must begin in the journal if the journal is complete from its start."""
        life = self.result.lives.get(command_id)
        if life is None:
            life = self.result.lives[command_id] = CommandLife(is_cut=True)
            if self.result.opened is not None and not self.result.opened.held:
                self._add("never_accepted", position, command_id, "the journal has no acceptance of the command")
        return life

    def _add(self, code: str, position: _Position, command_id: str | None, reason: str) -> None:
        self._findings.add_difference(code, position.number, reason, command_id, position.at)


def order(sequence: SequenceNumber) -> tuple[int, int]:
    """Return the sort key of a sequence number."""
    return sequence.epoch, sequence.number
