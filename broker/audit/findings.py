"""The input and output of a comparison: the ledger's side, the differences, and notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from broker.contract.messages import JournalMark, SequenceNumber
from broker.ledger.audits import KnownCommand, Verified
from broker.text import printable_line

__all__ = [
    "Difference",
    "Findings",
    "LedgerSide",
    "describe",
]


_MAX_SENTENCE_LENGTH = 1000


@dataclass(frozen=True)
class LedgerSide:
    """What the server knows about an agent. All but `known` and `unmatched` was read before the journal was requested.

    `known` holds the commands that the journal names, by id; `accepted` those that the agent had reported as accepted
    or later, oldest first. `unmatched` holds (command id, digest) of results that answered no open command.
    `status_head` is the journal's end in the agent's last status; `requested_by` is the command that requested it, the
    first of `requests`.
    """

    agent: str
    known: Mapping[str, KnownCommand]
    unmatched: frozenset[tuple[str, str]]
    accepted: Sequence[KnownCommand]
    status_head: JournalMark | None
    verified: Verified | None
    accepts_unsigned: bool
    requested_by: str
    requests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """Where journal and ledger disagree: the number of the journal entry, one sentence, and a stable code."""

    number: int
    message: str
    at: datetime | None = None
    command_id: str | None = None
    code: str = ""


@dataclass
class Findings:
    """Collects differences and notes. Texts may quote the agent, so they are bounded and made printable."""

    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_difference(
        self, code: str, number: int, reason: str, command_id: str | None = None, at: datetime | None = None
    ) -> None:
        """Add a difference at the journal entry `number`; `reason` ends a sentence."""
        details = [f"{at:%Y-%m-%d %H:%M:%S} UTC"] if at else []
        details += [f"command {command_id}"] if command_id else []
        where = f"Number {number} ({', '.join(details)})" if details else f"Number {number}"
        message = printable_line(f"{where}: {reason}.", _MAX_SENTENCE_LENGTH)
        self.differences.append(Difference(number, message, at, command_id, code))

    def add_note(self, sentence: str) -> None:
        """Add a note: information that is not a difference."""
        self.notes.append(printable_line(sentence, _MAX_SENTENCE_LENGTH))


def describe(sequence: SequenceNumber) -> str:
    """Return a sequence number as a part of a sentence."""
    return f"number {sequence.number} of epoch {sequence.epoch}"
