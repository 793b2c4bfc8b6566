"""The agent's audit journal: its entries, the chain of hashes that binds them, and what can be wrong with a copy of it.

An entry tells what one commit of the agent's store changed; it is one line of JSON. The hash at an entry is SHA-256 of
the hash before it (32 bytes) and the line's bytes; the hash before the first entry is 32 zero bytes. Lines are kept and
sent as they were written, so that nobody has to write them anew to check them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec

from broker.contract.fields import Sha256
from broker.contract.messages import Command, JournalMark, SequenceNumber, wire_members
from broker.contract.states import ErrorCode, Outcome

__all__ = [
    "JOURNAL_START",
    "MIN_KEPT_BYTES",
    "Accepted",
    "ChainFault",
    "JournalEntry",
    "JournalPage",
    "Opened",
    "Reported",
    "chain_faults",
    "command_sha256",
    "entry_hashes",
    "hash_after",
    "hashes_by_number",
]


# A journal drops its oldest pages only as long as it keeps entries of so many bytes: of some 5,000 commands that came
# one by one. So a journal that keeps less, and does not reach back to its first entry, has lost some.
MIN_KEPT_BYTES = 4 << 20
JOURNAL_START = JournalMark(0, "0" * 64)


class Opened(msgspec.Struct, frozen=True, omit_defaults=True):
    """A store began its journal, or found it damaged: `message` then says how. `held` commands were there already."""

    store_generation: str
    held: int = 0
    message: str | None = None


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command was stored. `sha256` is what `command_sha256` returns."""

    id: str
    type: str
    sha256: str
    sequence: SequenceNumber | None = None


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command got its result."""

    id: str
    digest: str | None = None
    outcome: Outcome | None = None
    code: ErrorCode | None = None


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one commit changed: `begun` (and `resumed`, after a crash) are ids of commands that `incarnation` runs."""

    number: int
    at: datetime
    opened: Opened | None = None
    accepted: list[Accepted] = []
    begun: list[str] = []
    resumed: list[str] = []
    incarnation: str | None = None
    reported: list[Reported] = []
    deleted: list[str] = []


@dataclass(frozen=True)
class JournalPage:
    """Entries in order, as they were written, from number `first` on; `before` is the hash before them."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    before: Sha256
    entries: tuple[str, ...]

    @property
    def last(self) -> int:
        """The number of the last entry."""
        return self.first + len(self.entries) - 1


@dataclass(frozen=True)
class ChainFault:
    """Where a copy of a journal is not one chain, and why, in words that end a sentence."""

    number: int
    reason: str


def command_sha256(command: Command) -> str:
    """Return the SHA-256 of a command, the same for the server that sent it and for the agent that stored it.

    It is of the command as JSON in UTF-8, without `sequence`, which a server may change, and without `original` and
    `notes`; members in the order of their names, at each depth, and no spaces.
    """
    members = wire_members(command)
    for name in ("sequence", "original", "notes"):
        members.pop(name, None)
    return hashlib.sha256(msgspec.json.encode(members, order="sorted")).hexdigest()


def hash_after(before: bytes, line: bytes) -> bytes:
    """Return the hash (32 bytes) at the entry `line` that follows the hash `before`."""
    return hashlib.sha256(before + line).digest()


def entry_hashes(page: JournalPage) -> list[str]:
    """Return the hash at each entry of a page, as its lines and the hash before them give it."""
    reached, found = bytes.fromhex(page.before), []
    for line in page.entries:
        reached = hash_after(reached, line.encode())
        found.append(reached.hex())
    return found


def chain_faults(anchor: JournalMark, head: JournalMark, pages: Sequence[JournalPage]) -> Iterator[ChainFault]:
    """Yield where these pages are not one chain from the anchor, the mark before the first entry kept, to the head."""
    reached = anchor
    for page in pages:
        if page.first != reached.number + 1:
            reason = f"after number {reached.number} the journal goes on with number {page.first}"
            yield ChainFault(min(page.first, reached.number + 1), reason)
        elif page.before != reached.hash:
            yield _altered(reached.number)
        if page.entries:
            reached = JournalMark(page.last, entry_hashes(page)[-1])
    if reached.number != head.number:
        reason = f"the journal ends with number {reached.number}, and its head is number {head.number}"
        yield ChainFault(min(reached.number, head.number) + 1, reason)
    elif reached.hash != head.hash:
        yield _altered(reached.number)


def hashes_by_number(anchor: JournalMark, pages: Sequence[JournalPage]) -> Mapping[int, str]:
    """Return the hash at each number, as each page by itself gives it."""
    found = {anchor.number: anchor.hash}
    for page in pages:
        found.update(enumerate(entry_hashes(page), page.first))
    return found


def _altered(number: int) -> ChainFault:
    words = f"the entries up to number {number} do not give the hash that follows them: one of them was altered"
    return ChainFault(number, words)
