"""Audit journals for tests: as a store keeps them, and as a forger would write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.contract.commands.get_audit_journal import GetAuditJournalData
from broker.contract.journal import JOURNAL_START, JournalPage, entry_hashes
from broker.contract.messages import JournalMark
from consumer.ports import CommandStore
from consumer.store.reader import read_journal
from tests.support.fakes.memory_store import MemoryCommandStore

Entries = list[dict[str, Any]]


def journal_in(state: Path) -> GetAuditJournalData:
    copy = read_journal(state)
    return GetAuditJournalData(copy.anchor, copy.head, copy.pages)


def journal_of(store: MemoryCommandStore) -> GetAuditJournalData:
    tail = store.journal_tail
    return GetAuditJournalData(tail.anchor, tail.head, tuple(store.journal_pages()))


def journal_of_any(store: CommandStore, state: Path | None) -> GetAuditJournalData:
    return journal_of(store) if isinstance(store, MemoryCommandStore) else journal_in(state or Path())


def entries_of(journal: GetAuditJournalData) -> Entries:
    return [json.loads(line) for page in journal.pages for line in page.entries]


def chained(entries: Entries, before: JournalMark = JOURNAL_START) -> GetAuditJournalData:
    """Return a journal of these entries whose hashes all fit."""
    page = JournalPage(before.number + 1, before.hash, tuple(json.dumps(entry) for entry in entries))
    return GetAuditJournalData(before, JournalMark(page.last, entry_hashes(page)[-1]), (page,))


def forged(journal: GetAuditJournalData, change: Callable[[Entries], Any]) -> GetAuditJournalData:
    """Return the journal after this change, with numbers and hashes that fit: what only others can find out."""
    entries = entries_of(journal)
    change(entries)
    for number, entry in enumerate(entries, 1):
        entry["number"] = number
    return chained(entries)
