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
    """Return the audit journal from the page on that holds the entry with number `first`."""

    first: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass(frozen=True)
class GetAuditJournalData:
    """Pages of the journal in order: as many as fit into 128 KiB, none if the journal ends before `first`.

    `anchor` is the mark before the first entry that is kept, `head` the one at the last entry. Ask again from the
    number after the last one in `pages` until that reaches `head`.
    """

    anchor: JournalMark
    head: JournalMark
    pages: tuple[JournalPage, ...]
