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
    """A command's life by the journal. `is_cut`: it began before the first entry that is left."""

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
class _Place:
    """The entry that is replayed."""

    number: int
    at: datetime


def replay(entries: Iterable[JournalEntry], side: LedgerSide, findings: Findings) -> Replay:
    """Return what the entries add up to; report each step that cannot follow, or that the ledger contradicts."""
    player = _Player(side, findings)
    for entry in entries:
        player.play(entry)
    return player.result


class _Player:
    def __init__(self, side: LedgerSide, findings: Findings) -> None:
        self._side = side
        self._findings = findings
        self.result = Replay()

    def play(self, entry: JournalEntry) -> None:
        place = _Place(entry.number, entry.at)
        self._open(place, entry.opened)
        for accepted in entry.accepted:
            self._accept(place, accepted)
        for command_id in entry.begun:
            self._begin(place, command_id, entry.incarnation)
        for command_id in entry.resumed:
            self._resume(place, command_id, entry.incarnation)
        for reported in entry.reported:
            self._report(place, reported)
        for command_id in entry.deleted:
            self._delete(place, command_id)

    def _open(self, place: _Place, opened: Opened | None) -> None:
        if place.number == 1:
            self.result.opened = opened
            if opened is None:
                self._differ("no_opening", place, None, "the journal's first entry is not an opening")
            elif opened.message:
                at = f"{place.at:%Y-%m-%d %H:%M:%S} UTC"
                self._findings.note(f"The journal was begun again at {at}: {opened.message}")
        elif opened is not None:
            self._differ("found_changed", place, None, f"the agent found its journal changed: {opened.message}")

    def _accept(self, place: _Place, accepted: Accepted) -> None:
        before = self.result.lives.get(accepted.id)
        if before and not (before.is_deleted and accepted.sequence is None):
            self._differ("accepted_twice", place, accepted.id, "the command was accepted a second time")
            return
        self.result.lives[accepted.id] = CommandLife()
        self._check_accepted(place, accepted)
        if accepted.sequence is not None:
            numbered = self.result.numbered
            if numbered and order(accepted.sequence) <= order(numbered[-1][0]):
                reason = f"the command has {describe(accepted.sequence)}, after {describe(numbered[-1][0])}"
                self._differ("out_of_sequence", place, accepted.id, reason)
            numbered.append((accepted.sequence, place.number))

    def _check_accepted(self, place: _Place, accepted: Accepted) -> None:
        """Report how an accepted command differs from the one that the ledger sent."""
        known, sequence = self._side.known.get(accepted.id), accepted.sequence
        claim = f"a {accepted.type} was accepted"
        if known is None and sequence is None:
            self.result.unsigned += 1
            if not self._side.accepts_unsigned:
                reason = f"{claim} without a number; the ledger does not know it"
                self._differ("unknown_command", place, accepted.id, reason)
        elif known is None:
            self._differ("unknown_command", place, accepted.id, f"{claim}; the ledger does not know it")
        elif known.agent != self._side.agent:
            reason = f"{claim}; the ledger sent the command to {known.agent}"
            self._differ("other_agent", place, accepted.id, reason)
        elif known.sequence != sequence and (sequence is None or known.sequence.epoch <= sequence.epoch):
            given = f"as {describe(sequence)}" if sequence else "without a number"
            reason = f"{claim} {given}; the ledger sent it as {describe(known.sequence)}"
            self._differ("other_sequence", place, accepted.id, reason)
        elif known.sha256 != accepted.sha256:
            reason = f"{claim} with the content {accepted.sha256}; the ledger sent {known.sha256}"
            self._differ("other_content", place, accepted.id, reason)

    def _begin(self, place: _Place, command_id: str, incarnation: str | None) -> None:
        life = self._life(place, command_id)
        if life.runs_on is not None or life.reported is not None:
            state = "was completed" if life.reported else "had begun"
            self._differ("begun_twice", place, command_id, f"the command began when it {state} already")
        life.runs_on = incarnation or ""

    def _resume(self, place: _Place, command_id: str, incarnation: str | None) -> None:
        life = self._life(place, command_id)
        if life.reported is not None or not (life.is_cut or life.runs_on is not None):
            self._differ("resumed_idle", place, command_id, "the command ran again, but it was not running")
        elif life.runs_on == incarnation:
            reason = "the command ran again though the agent had not restarted"
            self._differ("resumed_without_restart", place, command_id, reason)
        life.runs_on = incarnation or ""

    def _report(self, place: _Place, reported: Reported) -> None:
        life = self._life(place, reported.id)
        if life.reported is not None:
            self._differ("second_result", place, reported.id, "the journal has a second result of the command")
        life.reported = reported
        known = self._side.known.get(reported.id)
        if known is None or known.state is not CommandState.COMPLETED:
            return  # a deletion will show whether the ledger should have it
        if known.is_completed_by_server:
            self.result.completed_by_server += 1
        elif known.digest != reported.digest:
            stored = ", and stored that one as unmatched" if self._is_unmatched(reported) else ""
            reason = f"the result {reported.digest} was reported; the ledger holds {known.digest}{stored}"
            self._differ("other_result", place, reported.id, reason)
        elif known.outcome not in (None, reported.outcome):
            reason = f"the outcome {reported.outcome} was reported; the ledger holds {known.outcome}"
            self._differ("other_outcome", place, reported.id, reason)

    def _delete(self, place: _Place, command_id: str) -> None:
        life = self._life(place, command_id)
        if life.is_deleted:
            self._differ("deleted_twice", place, command_id, "the command was deleted a second time")
        elif life.reported is None and not life.is_cut:
            self._differ("deleted_without_result", place, command_id, "the command was deleted without a result")
        elif not self._is_committed(command_id, life.reported):
            reason = "the command was deleted; the ledger does not hold its result"
            self._differ("deleted_uncommitted", place, command_id, reason)
        life.is_deleted = True

    def _is_committed(self, command_id: str, reported: Reported | None) -> bool:
        known = self._side.known.get(command_id)
        if reported is None:
            completed = known is not None and known.state is CommandState.COMPLETED
            return completed or any(command_id == unmatched for unmatched, _ in self._side.unmatched)
        return (known is not None and known.digest == reported.digest) or self._is_unmatched(reported)

    def _is_unmatched(self, reported: Reported) -> bool:
        return (reported.id, reported.digest) in self._side.unmatched

    def _life(self, place: _Place, command_id: str) -> CommandLife:
        """Return a command's life, which must begin in the journal if the journal is complete from its start."""
        life = self.result.lives.get(command_id)
        if life is None:
            life = self.result.lives[command_id] = CommandLife(is_cut=True)
            if self.result.opened is not None and not self.result.opened.held:
                self._differ("never_accepted", place, command_id, "the journal has no acceptance of the command")
        return life

    def _differ(self, code: str, place: _Place, command_id: str | None, reason: str) -> None:
        self._findings.differ(code, place.number, reason, command_id, place.at)


def order(sequence: SequenceNumber) -> tuple[int, int]:
    """Return the key by which sequence numbers are in order."""
    return sequence.epoch, sequence.number
