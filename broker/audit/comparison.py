"""Compares an agent's audit journal with the ledger: its chain, a replay of its entries, and its completeness.

Pure: it does no I/O.
"""

from dataclasses import dataclass
from datetime import datetime

from broker.audit.chain import check_marks, read_chain
from broker.audit.completeness import check_completeness
from broker.audit.findings import Difference, Findings, LedgerSide
from broker.audit.replay import Replay, replay
from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import hashes_by_number
from broker.contract.messages import JournalMark
from broker.text import counted

__all__ = [
    "Verdict",
    "compare",
]


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison: the differences in journal order, and notes that are not differences."""

    head: JournalMark
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    entries: int
    commands: int
    since: datetime | None
    until: datetime | None


def compare(journal: GetAuditJournalData, side: LedgerSide) -> Verdict:
    """Compare a journal with the ledger, with its own hash chain, and with its earlier marks."""
    findings = Findings()
    entries = read_chain(journal, findings)
    replayed = replay(entries, side, findings)
    check_marks(journal, side, entries, findings)
    check_completeness(journal.head, side, replayed, findings)
    _add_counts(replayed, findings)
    return Verdict(
        journal.head,
        tuple(sorted(_not_accepted(journal, side, findings), key=lambda difference: difference.number)),
        tuple(findings.notes),
        len(entries),
        sum(not life.is_cut for life in replayed.lives.values()),
        entries[0].at if entries else None,
        entries[-1].at if entries else None,
    )


def _add_counts(replayed: Replay, findings: Findings) -> None:
    if replayed.unsigned:
        count = counted(replayed.unsigned, "command was", "commands were")
        findings.add_note(f"{count} not sent by this server; the agent accepts unsigned commands.")
    if replayed.completed_by_server:
        count = counted(replayed.completed_by_server, "command")
        findings.add_note(f"{count} ran although the ledger had completed them without the agent.")


def _not_accepted(journal: GetAuditJournalData, side: LedgerSide, findings: Findings) -> list[Difference]:
    """Return the differences after the entry up to which the user accepted this journal."""
    accepted = side.verified.accepted if side.verified else None
    hashes = hashes_by_number(journal.anchor, journal.pages)
    if accepted is None or hashes.get(accepted.number) != accepted.hash:
        return findings.differences
    return [difference for difference in findings.differences if difference.number > accepted.number]
