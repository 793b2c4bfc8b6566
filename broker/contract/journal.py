"""The agent's audit journal: its entries, the hash chain over them, and the verification of a copy.

An entry is one line of JSON, and records what one commit of the agent's store changed. The hash of an entry is the
SHA-256 of the previous hash (32 bytes) and the line's bytes; the hash before the first entry is 32 zero bytes. Lines
are stored and sent as written, so a verifier need not reproduce their encoding.
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


# A journal drops its oldest pages, but keeps at least this many bytes of entries: those of some 5,000 commands received
# one by one. So a journal that has fewer, and does not begin with entry number 1, has lost entries.
MIN_KEPT_BYTES = 4 << 20
JOURNAL_START = JournalMark(0, "0" * 64)


class Opened(msgspec.Struct, frozen=True, omit_defaults=True):
    """A store began a journal; `message` is set if it found a damaged one. It had `held` commands then."""

    store_generation: str
    held: int = 0
    message: str | None = None


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command was stored; `sha256` is its `command_sha256`."""

    id: str
    type: str
    sha256: str
    sequence: SequenceNumber | None = None


class Reported(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of a command was stored."""

    id: str
    digest: str | None = None
    outcome: Outcome | None = None
    code: ErrorCode | None = None


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The changes of one commit. `incarnation` began the commands `begun`, and `resumed` others after a crash (ids)."""

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
    """Consecutive entries as written, from number `first` on; `before` is the hash before them."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    before: Sha256
    entries: tuple[str, ...]

    @property
    def last(self) -> int:
        """The number of the last entry."""
        return self.first + len(self.entries) - 1


@dataclass(frozen=True)
class ChainFault:
    """The entry at which a copy of a journal is not one chain, and why, as the end of a sentence."""

    number: int
    reason: str


def command_sha256(command: Command) -> str:
    """Return the SHA-256 of a command, the same on the server that sent it and the agent that stored it.

    It covers the command as JSON in UTF-8 with sorted members, at each level, and without spaces. `sequence`, which a
    server may change, `original` and `notes` are left out. design.md: "A command's hash excludes its number"
    """
    members = wire_members(command)
    for name in ("sequence", "original", "notes"):
        members.pop(name, None)
    return hashlib.sha256(msgspec.json.encode(members, order="sorted")).hexdigest()


def hash_after(before: bytes, line: bytes) -> bytes:
    """Return the hash (32 bytes) of the entry `line` after the hash `before`."""
    return hashlib.sha256(before + line).digest()


def entry_hashes(page: JournalPage) -> list[str]:
    """Return the hash of each entry of a page, computed from its lines and the hash before them."""
    reached, found = bytes.fromhex(page.before), []
    for line in page.entries:
        reached = hash_after(reached, line.encode())
        found.append(reached.hex())
    return found


def chain_faults(anchor: JournalMark, head: JournalMark, pages: Sequence[JournalPage]) -> Iterator[ChainFault]:
    """Yield each place where the pages are not one chain from the anchor (before the first kept entry) to the head."""
    reached = anchor
    for page in pages:
        if page.first != reached.number + 1:
            reason = f"number {reached.number} is followed by number {page.first}"
            yield ChainFault(min(page.first, reached.number + 1), reason)
        elif page.before != reached.hash:
            yield _altered(reached.number)
        if page.entries:
            reached = JournalMark(page.last, entry_hashes(page)[-1])
    if reached.number != head.number:
        reason = f"the journal ends with number {reached.number}, but its head is number {head.number}"
        yield ChainFault(min(reached.number, head.number) + 1, reason)
    elif reached.hash != head.hash:
        yield _altered(reached.number)


def hashes_by_number(anchor: JournalMark, pages: Sequence[JournalPage]) -> Mapping[int, str]:
    """Return the hash of each number, computed for each page from the hash before it."""
    found = {anchor.number: anchor.hash}
    for page in pages:
        found.update(enumerate(entry_hashes(page), page.first))
    return found


def _altered(number: int) -> ChainFault:
    reason = f"the entries up to number {number} do not match the hash after them: one of them was changed"
    return ChainFault(number, reason)
