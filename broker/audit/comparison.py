"""Compares an agent's audit journal with the ledger, and finds where they differ. Pure: it reads nothing by itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import (
    MIN_KEPT_BYTES,
    Accepted,
    JournalEntry,
    Opened,
    Reported,
    chain_faults,
    hashes_by_number,
)
from broker.contract.messages import JournalMark, SequenceNumber
from broker.contract.states import ErrorCode
from broker.ledger.audits import Known, Verified
from broker.ledger.tables import CommandState
from broker.text import counted, printable_line

__all__ = [
    "Difference",
    "LedgerSide",
    "Verdict",
    "compare",
]


# What an agent answers so was never in its store.
_NEVER_STORED = (ErrorCode.REJECTED, ErrorCode.SUPERSEDED)
_MAX_SENTENCE_LENGTH = 1000
_decode = msgspec.json.Decoder(JournalEntry).decode


@dataclass(frozen=True)
class LedgerSide:
    """What the server knows. All but `known` and `kept_apart` is of the time before the journal was asked for.

    `known` holds the ledger's view of each command that the journal names, `said` those that the agent had said it
    holds, oldest first. `told` is the journal's end by the agent's last status, `asked_by` the command that asked.
    """

    agent: str
    known: Mapping[str, Known]
    kept_apart: frozenset[tuple[str, str]]
    said: Sequence[Known]
    told: JournalMark | None
    verified: Verified | None
    accepts_unsigned: bool
    asked_by: str


@dataclass(frozen=True)
class Difference:
    """Where journal and ledger say different things, in one sentence; `number` is that of the entry it shows at."""

    number: int
    message: str
    at: datetime | None = None
    command_id: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of a comparison: the differences in the journal's order, and what is worth knowing beside them."""

    head: JournalMark
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    entries: int
    commands: int
    since: datetime | None
    until: datetime | None


@dataclass
class _Life:
    """A command's life by the journal. `is_cut`: it began before the first entry that is there."""

    is_cut: bool = False
    runs_on: str | None = None
    reported: Reported | None = None
    is_deleted: bool = False


def compare(journal: GetAuditJournalData, side: LedgerSide) -> Verdict:
    """Return where a journal that claims to be whole differs from the ledger, with itself, and with what it was."""
    return _Comparison(journal, side).verdict()


@dataclass
class _Place:
    """Where in the journal the comparison is."""

    number: int
    at: datetime


@dataclass
class _Comparison:
    journal: GetAuditJournalData
    side: LedgerSide
    found: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lives: dict[str, _Life] = field(default_factory=dict)
    numbered: list[tuple[SequenceNumber, int]] = field(
        default_factory=list
    )  # sequences and their entries, as they came
    unsigned: int = 0
    given_up: int = 0
    opened: Opened | None = None

    def verdict(self) -> Verdict:
        self._check_chain()
        entries = list(self._entries())
        for entry in entries:
            self._follow(entry)
        self._check_marks(entries)
        self._check_nothing_is_missing()
        if self.unsigned:
            past = counted(self.unsigned, "command")
            self.notes.append(f"{past} came past the server; the agent accepts unsigned ones.")
        if self.given_up:
            lost = counted(self.given_up, "command was", "commands were")
            self.notes.append(f"{lost} run after all, though given up as lost by the ledger.")
        times = [entry.at for entry in entries]
        return Verdict(
            self.journal.head,
            tuple(sorted(self._not_accepted(), key=lambda difference: difference.number)),
            tuple(self.notes),
            len(entries),
            sum(not life.is_cut for life in self.lives.values()),
            times[0] if times else None,
            times[-1] if times else None,
        )

    # -- the journal by itself

    def _check_chain(self) -> None:
        journal = self.journal
        for fault in chain_faults(journal.anchor, journal.head, journal.pages):
            self._differ(fault.number, f"the journal is not one chain: {fault.reason}")
        size = sum(len(line.encode()) for page in journal.pages for line in page.entries)
        if journal.anchor.number and size < MIN_KEPT_BYTES:
            said = f"the journal says that its entries up to {journal.anchor.number} were dropped as too old"
            self._differ(
                journal.anchor.number + 1, f"{said}, but keeps only {size} bytes; it would keep {MIN_KEPT_BYTES}"
            )

    def _entries(self) -> Iterator[JournalEntry]:
        for page in self.journal.pages:
            for number, line in enumerate(page.entries, page.first):
                try:
                    entry = _decode(line)
                except (msgspec.DecodeError, UnicodeError):
                    self._differ(number, "the entry cannot be read")
                    continue
                if entry.number == number:
                    yield entry
                else:
                    self._differ(number, f"the entry calls itself number {entry.number}")

    # -- what each entry tells

    def _follow(self, entry: JournalEntry) -> None:
        place = _Place(entry.number, entry.at)
        self._follow_opening(place, entry.opened)
        for accepted in entry.accepted:
            self._follow_acceptance(place, accepted)
        for command_id in entry.begun:
            self._follow_begin(place, command_id, entry.incarnation)
        for command_id in entry.resumed:
            self._follow_resumption(place, command_id, entry.incarnation)
        for reported in entry.reported:
            self._follow_result(place, reported)
        for command_id in entry.deleted:
            self._follow_deletion(place, command_id)

    def _follow_opening(self, place: _Place, opened: Opened | None) -> None:
        if place.number == 1:
            self.opened = opened
            if opened is None:
                self._tell(place, None, "the journal does not begin as a journal does")
            elif opened.message:
                note = f"The journal began anew at {place.at:%Y-%m-%d %H:%M:%S} UTC: {opened.message}"
                self.notes.append(printable_line(note, _MAX_SENTENCE_LENGTH))
        elif opened is not None:
            self._tell(place, None, f"the agent found its journal changed: {opened.message}")

    def _follow_acceptance(self, place: _Place, accepted: Accepted) -> None:
        before = self.lives.get(accepted.id)
        if before and not (before.is_deleted and accepted.sequence is None):
            self._tell(place, accepted.id, "the journal says that the command was accepted a second time")
            return
        self.lives[accepted.id] = _Life()
        reason = self._against_ledger(accepted)
        if reason:
            self._tell(place, accepted.id, reason)
        if accepted.sequence is not None:
            if self.numbered and _key(accepted.sequence) <= _key(self.numbered[-1][0]):
                last = _in_words(self.numbered[-1][0])
                self._tell(place, accepted.id, f"the journal gives it {_in_words(accepted.sequence)} after {last}")
            self.numbered.append((accepted.sequence, place.number))

    def _against_ledger(self, accepted: Accepted) -> str | None:
        known, sequence = self.side.known.get(accepted.id), accepted.sequence
        says = f"the journal says that a {accepted.type} was accepted"
        if known is None and sequence is None:
            self.unsigned += 1
            return None if self.side.accepts_unsigned else f"{says} without a number; the ledger does not know it"
        if known is None:
            return f"{says}; the ledger does not know it"
        if known.agent != self.side.agent:
            return f"{says}; the ledger gave the command to {known.agent}"
        renumbered = sequence is not None and known.sequence.epoch > sequence.epoch
        if known.sequence != sequence and not renumbered:
            given = _in_words(sequence) if sequence else "without a number"
            return f"{says} as {given}; the ledger gave it {_in_words(known.sequence)}"
        if known.sha256 != accepted.sha256:
            return f"{says} with the content {accepted.sha256}; the ledger sent {known.sha256}"
        return None

    def _follow_begin(self, place: _Place, command_id: str, incarnation: str | None) -> None:
        life = self._life(place, command_id)
        if life.runs_on is not None or life.reported is not None:
            state = "its result was there" if life.reported else "it had begun"
            self._tell(place, command_id, f"the journal says that the command began when {state} already")
        life.runs_on = incarnation or ""

    def _follow_resumption(self, place: _Place, command_id: str, incarnation: str | None) -> None:
        life = self._life(place, command_id)
        if life.reported is not None or not (life.is_cut or life.runs_on is not None):
            self._tell(place, command_id, "the journal says that the command ran again, but it was not running")
        elif life.runs_on == incarnation:
            self._tell(place, command_id, "the journal says that the command ran again though the agent had not died")
        life.runs_on = incarnation or ""

    def _follow_result(self, place: _Place, reported: Reported) -> None:
        life = self._life(place, reported.id)
        if life.reported is not None:
            self._tell(place, reported.id, "the journal has a second result of the command")
        life.reported = reported
        known = self.side.known.get(reported.id)
        if known is None or known.state is not CommandState.COMPLETED:
            return  # a deletion will say whether the ledger should have it
        if known.is_given_up:
            self.given_up += 1
        elif known.digest != reported.digest:
            apart = ", and kept that one apart" if self._is_apart(reported) else ""
            says = f"the journal says that the result {reported.digest} was reported"
            self._tell(place, reported.id, f"{says}; the ledger holds {known.digest}{apart}")
        elif known.outcome not in (None, reported.outcome):
            message = f"the journal calls the outcome {reported.outcome}; the ledger holds {known.outcome}"
            self._tell(place, reported.id, message)

    def _follow_deletion(self, place: _Place, command_id: str) -> None:
        life = self._life(place, command_id)
        if life.is_deleted or (life.reported is None and not life.is_cut):
            state = "a second time" if life.is_deleted else "without a result"
            self._tell(place, command_id, f"the journal says that the command was deleted {state}")
        elif not self._is_committed(command_id, life.reported):
            message = "the journal says that the command was deleted; the ledger does not hold its result"
            self._tell(place, command_id, message)
        life.is_deleted = True

    def _is_committed(self, command_id: str, reported: Reported | None) -> bool:
        known = self.side.known.get(command_id)
        if reported is None:
            return (known is not None and known.state is CommandState.COMPLETED) or any(
                command_id == apart for apart, _ in self.side.kept_apart
            )
        return (known is not None and known.digest == reported.digest) or self._is_apart(reported)

    def _is_apart(self, reported: Reported) -> bool:
        return (reported.id, reported.digest) in self.side.kept_apart

    def _life(self, place: _Place, command_id: str) -> _Life:
        """Return the life of a command, which must have begun in the journal unless that has no beginning itself."""
        life = self.lives.get(command_id)
        if life is None:
            life = self.lives[command_id] = _Life(is_cut=True)
            if self.opened is not None and not self.opened.held:
                self._tell(place, command_id, "the journal tells of a command that it never says was accepted")
        return life

    # -- the journal as it was, and as it should be

    def _check_marks(self, entries: Sequence[JournalEntry]) -> None:
        hashes = hashes_by_number(self.journal.anchor, self.journal.pages)
        anew = f"; it begins at {entries[0].at:%Y-%m-%d %H:%M:%S} UTC" if entries and self.opened else ""
        if self.side.told:
            self._check_mark(self.side.told, "the agent's status told", anew, hashes)
        verified = self.side.verified
        if verified:
            self._check_mark(verified.head, f"it was good at {verified.at:%Y-%m-%d %H:%M:%S} UTC", anew, hashes)

    def _check_mark(self, mark: JournalMark, why: str, anew: str, hashes: Mapping[int, str]) -> None:
        head, anchor = self.journal.head.number, self.journal.anchor.number
        if mark.number > head:
            self._differ(head + 1, f"the journal ends with number {head}, but {why} with number {mark.number}{anew}")
        elif mark.number < anchor:
            self.notes.append(f"The journal no longer reaches back to number {mark.number}, where {why}.")
        elif hashes.get(mark.number, mark.hash) != mark.hash:
            said = f"the journal was written anew up to here: {why} with the hash {mark.hash[:16]}…"
            self._differ(mark.number, f"{said}, and now it is {hashes[mark.number][:16]}…{anew}")

    def _check_nothing_is_missing(self) -> None:
        if self.side.asked_by not in self.lives:
            at = self.journal.head.number + 1
            self._differ(at, "the journal does not hold the very command by which it was asked for", self.side.asked_by)
        for known in self.side.said:
            if known.command_id in self.lives:
                self._check_result_is_there(known)
            elif known.code not in _NEVER_STORED and self._reaches_back_to(known.sequence):
                number = self._number_before(known.sequence)
                words = f"the ledger says that the agent took {_in_words(known.sequence)} ({known.state})"
                self._differ(number, f"{words}; the journal does not have it", known.command_id)

    def _check_result_is_there(self, known: Known) -> None:
        life = self.lives[known.command_id]
        if known.state is CommandState.COMPLETED and life.reported is None and not life.is_cut:
            number = self._number_before(known.sequence)
            words = f"the ledger holds the result {known.digest} of {_in_words(known.sequence)}"
            self._differ(number, f"{words}; the journal has none", known.command_id)

    def _reaches_back_to(self, sequence: SequenceNumber) -> bool:
        if self.opened is not None and not self.opened.message and not self.opened.held:
            return True
        return bool(self.numbered) and _key(sequence) > _key(self.numbered[0][0])

    def _number_before(self, sequence: SequenceNumber) -> int:
        """Return the number of the first entry that should not have come before this command's."""
        later = (number for other, number in self.numbered if _key(other) > _key(sequence))
        return next(later, self.journal.head.number + 1)

    def _not_accepted(self) -> Iterable[Difference]:
        accepted = self.side.verified.accepted if self.side.verified else None
        if (
            accepted is None
            or hashes_by_number(self.journal.anchor, self.journal.pages).get(accepted.number) != accepted.hash
        ):
            return self.found
        return [difference for difference in self.found if difference.number > accepted.number]

    def _tell(self, place: _Place, command_id: str | None, words: str) -> None:
        self._differ(place.number, words, command_id, place.at)

    def _differ(self, number: int, words: str, command_id: str | None = None, at: datetime | None = None) -> None:
        where = f"Number {number}"
        details = [f"{at:%Y-%m-%d %H:%M:%S} UTC"] if at else []
        details += [f"command {command_id}"] if command_id else []
        where += f" ({', '.join(details)})" if details else ""
        self.found.append(
            Difference(number, printable_line(f"{where}: {words}.", _MAX_SENTENCE_LENGTH), at, command_id)
        )


def _key(sequence: SequenceNumber) -> tuple[int, int]:
    return sequence.epoch, sequence.number


def _in_words(sequence: SequenceNumber) -> str:
    return f"number {sequence.number} of epoch {sequence.epoch}"
