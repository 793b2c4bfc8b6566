"""`get-audit-journal`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from broker.contract.journal import JournalPage
from broker.contract.messages import JournalMark

__all__ = [
    "GetAuditJournal",
    "GetAuditJournalData",
]


@dataclass(frozen=True)
class GetAuditJournal:
    """Return the audit journal, beginning with the page that has the entry with number `first`."""

    first: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass(frozen=True)
class GetAuditJournalData:
    """Consecutive pages of the journal: as many as fit into 128 KiB, none if the journal ends before `first`.

    `anchor` is the mark before the first kept entry, `head` that of the last entry. Repeat with the number after the
    last one in `pages` until `head` is reached.
    """

    anchor: JournalMark
    head: JournalMark
    pages: tuple[JournalPage, ...]
