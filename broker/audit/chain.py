"""Checks a journal's hash chain, its entries, and the marks at which the server has seen it before."""

from collections.abc import Mapping, Sequence

import msgspec

from broker.audit.findings import Findings, LedgerSide
from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import MIN_KEPT_BYTES, JournalEntry, chain_faults, hashes_by_number
from broker.contract.messages import JournalMark

__all__ = [
    "check_marks",
    "read_chain",
]


_decode = msgspec.json.Decoder(JournalEntry).decode


def read_chain(journal: GetAuditJournalData, findings: Findings) -> list[JournalEntry]:
    """Return the readable entries; report where the hash chain is broken, and entries that were dropped too soon."""
    for fault in chain_faults(journal.anchor, journal.head, journal.pages):
        findings.add_difference("broken_chain", fault.number, f"the journal is not one chain: {fault.reason}")
    size = sum(len(line.encode()) for page in journal.pages for line in page.entries)
    if journal.anchor.number and size < MIN_KEPT_BYTES:
        dropped = f"the journal says that its entries up to {journal.anchor.number} were dropped as too old"
        reason = f"{dropped}, but it has only {size} bytes left, and {MIN_KEPT_BYTES} must be kept"
        findings.add_difference("dropped_too_soon", journal.anchor.number + 1, reason)
    return _entries(journal, findings)


def _entries(journal: GetAuditJournalData, findings: Findings) -> list[JournalEntry]:
    entries = []
    for page in journal.pages:
        for number, line in enumerate(page.entries, page.first):
            try:
                entry = _decode(line)
            except (msgspec.DecodeError, UnicodeError):
                findings.add_difference("unreadable_entry", number, "the entry cannot be read")
                continue
            if entry.number == number:
                entries.append(entry)
            else:
                findings.add_difference("wrong_number", number, f"the entry has the number {entry.number}")
    return entries


def check_marks(
    journal: GetAuditJournalData, side: LedgerSide, entries: Sequence[JournalEntry], findings: Findings
) -> None:
    """Report where the journal does not hold the hashes that it had before.

    The hash chain alone proves nothing about an agent that may rewrite its journal.
    """  # design.md: "The server remembers where a journal was valid."
    hashes = hashes_by_number(journal.anchor, journal.pages)
    begins = entries[0].at if entries and entries[0].number == 1 and entries[0].opened else None
    start = f"; it begins at {begins:%Y-%m-%d %H:%M:%S} UTC" if begins else ""
    if side.status_head:
        _check_mark(journal, side.status_head, "the agent's status reported", start, hashes, findings)
    if side.verified:
        when = f"it was verified at {side.verified.at:%Y-%m-%d %H:%M:%S} UTC"
        _check_mark(journal, side.verified.head, when, start, hashes, findings)


def _check_mark(
    journal: GetAuditJournalData,
    mark: JournalMark,
    seen: str,
    start: str,
    hashes: Mapping[int, str],
    findings: Findings,
) -> None:
    head = journal.head.number
    if mark.number > head:
        reason = f"the journal ends with number {head}, but {seen} with number {mark.number}{start}"
        findings.add_difference("shortened", head + 1, reason)
    elif mark.number < journal.anchor.number:
        findings.add_note(f"The journal no longer reaches back to number {mark.number}, where {seen}.")
    elif hashes.get(mark.number, mark.hash) != mark.hash:
        reason = f"the journal was rewritten up to here: {seen} with the hash {mark.hash[:16]}…"
        findings.add_difference("rewritten", mark.number, f"{reason}, and now it is {hashes[mark.number][:16]}…{start}")
