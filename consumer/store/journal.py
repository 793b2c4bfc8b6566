"""Writes the audit journal of a command store, within the store's own commits.

The newest entries are part of the store's head row, which a commit writes anyway. When they fill a page, the page
becomes a row of its own, written once, and deleted once it is among the oldest.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import msgspec

from broker.contract.journal import (
    JOURNAL_START,
    MIN_KEPT_BYTES,
    Accepted,
    JournalEntry,
    JournalPage,
    Opened,
    Reported,
    command_sha256,
    entry_hashes,
    hash_after,
)
from broker.contract.messages import Command, Feedback, JournalMark
from consumer.errors import StoreError
from consumer.store.damage import StoreDamage

__all__ = [
    "PAGES",
    "Journal",
    "JournalTail",
    "page_key",
    "page_number",
    "read_page",
]


# Entries become a page once they reach the first size: the smaller it is, the less each commit writes, and the more
# pages there are. A commit with many more entries fills pages of the second size.
_PAGE_BYTES = 1 << 12
_FULL_PAGE_BYTES = 1 << 15
# An id and a type may take half a KiB each; an entry for this many commands always fits into a message.
_MAX_PER_ENTRY = 64
PAGES = "j/"
_HASH = re.compile(r"[0-9a-f]{64}")
_encode = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(JournalEntry).decode


class _Rows(Protocol):
    """Where pages are stored by their keys, within the transaction of the caller."""

    def __getitem__(self, key: str, /) -> bytes: ...

    def __setitem__(self, key: str, value: bytes, /) -> None: ...

    def __delitem__(self, key: str, /) -> None: ...


class JournalTail(msgspec.Struct, frozen=True):
    """The part of the journal that the store's head row holds.

    `anchor` is the mark before the first stored entry, `head` the one at the last entry. `entries` are those not yet in
    a page, after the hash `before`; the full pages have `paged_bytes` in all.
    """

    anchor: JournalMark = JOURNAL_START
    head: JournalMark = JOURNAL_START
    before: str = JOURNAL_START.hash
    entries: list[msgspec.Raw] = []
    paged_bytes: int = 0

    def page(self) -> JournalPage:
        """Return the entries that are not yet in a page, as a page."""
        first = self.head.number - len(self.entries) + 1
        return JournalPage(max(first, 1), self.before, tuple(_text(bytes(line)) for line in self.entries))


def page_key(first: int) -> str:
    """Return the key of the page whose first entry has this number; keys sort like the numbers."""
    return f"{PAGES}{first:016d}"


def page_number(key: str) -> int | None:
    """Return the number of the first entry of the page with this key; None if it is not the key of a page."""
    digits = key.removeprefix(PAGES)
    return int(digits) if digits != key and digits.isdecimal() else None


def read_page(first: int, row: bytes) -> JournalPage:
    """Return the page in a row. Foreign content becomes entries that break the hash chain."""
    before, *lines = _text(row).split("\n")
    return JournalPage(first, _hash(before), tuple(lines))


def _hash(text: str) -> str:
    """Return a hash, or one that fits no entry in place of what is none."""
    return text if _HASH.fullmatch(text) else JOURNAL_START.hash


def _readable(tail: JournalTail) -> JournalTail:
    """Return the tail with hashes only; what the disk has made of one then breaks the chain."""
    anchor, head = (replace(mark, hash=_hash(mark.hash)) for mark in (tail.anchor, tail.head))
    return msgspec.structs.replace(tail, anchor=anchor, head=head, before=_hash(tail.before))


def _text(row: bytes) -> str:
    return row.decode(errors="replace")


# design.md: "The audit journal is written by the store"
class Journal:
    """The journal's end, and the changes recorded until the next `flush`.

    `first_numbers` are those of the first entries of the pages in `rows`, in order. `opened` begins a new journal.
    `damage` is not None if the end was altered from outside. The journal then continues after it, so that
    the break stays visible. After a rollback, create the journal again.
    """

    def __init__(
        self, rows: _Rows, tail: JournalTail, first_numbers: Iterable[int], now: Callable[[], datetime], opened: Opened
    ) -> None:
        self._rows = rows
        self._now = now
        self._first_numbers = deque(first_numbers)
        self._waiting: list[bytes] = []
        self._opened: Opened | None = None
        self._clear_draft()
        self.tail = _readable(tail)
        self._entries = [msgspec.Raw(bytes(line)) for line in tail.entries]
        self._bytes = sum(len(bytes(line)) for line in tail.entries)
        self._is_broken = False
        self.damage = self._damage()
        if self.damage:
            self._continue_after()
            self._opened = msgspec.structs.replace(opened, message=self.damage.message)
        elif not tail.head.number:
            self._opened = opened

    def accepted(self, command: Command) -> None:
        """Record that a command was stored."""
        self._make_room()
        self._accepted.append(Accepted(command.id, command.type, command_sha256(command), command.sequence))

    def begun(self, command_id: str, incarnation: str) -> None:
        """Record that this incarnation of the agent begins a command."""
        self._set_incarnation(incarnation)
        self._begun.append(command_id)

    def resumed(self, command_id: str, incarnation: str) -> None:
        """Record that this incarnation reruns a command that an earlier one began."""
        self._set_incarnation(incarnation)
        self._resumed.append(command_id)

    def reported(self, command_id: str, result: Feedback) -> None:
        """Record a command's result."""
        self._make_room()
        self._reported.append(Reported(command_id, result.digest, result.outcome, result.code))

    def find_reported(self, command_id: str) -> Reported | None:
        """Return the newest record of this command's result that is still kept, or None."""
        pages = [self.tail.page(), *filter(None, map(self._page_at, reversed(self._first_numbers)))]
        for line in (line for page in pages for line in reversed(page.entries) if command_id in line):
            with suppress(ValueError):
                found = [it for it in _decode_entry(line).reported if it.id == command_id]
                if found:
                    return found[-1]
        return None

    def deleted(self, command_id: str) -> None:
        """Record that a command was deleted."""
        self._make_room()
        self._deleted.append(command_id)

    def flush(self) -> bool:
        """Write the recorded changes and delete the oldest pages; return whether there were changes.

        Call it before a commit; the head row must then hold `tail`.
        """
        self._close_entry()
        if not self._waiting:
            return False
        pages = len(self._first_numbers)
        self._append_waiting()
        if len(self._first_numbers) > pages:
            self._drop_oldest()
        return True

    def _append_waiting(self) -> None:
        reached, number = bytes.fromhex(self.tail.head.hash), self.tail.head.number
        was_broken = self._is_broken
        for line in self._waiting:
            if self._bytes >= _FULL_PAGE_BYTES or self._is_broken:
                self._write_page(number, reached)
            self._entries.append(msgspec.Raw(line))
            self._bytes += len(line)
            reached = hash_after(reached, line)
            number += 1
        if self._bytes >= _PAGE_BYTES or was_broken:
            self._write_page(number, reached)
        self._waiting.clear()
        tail = self.tail
        head = JournalMark(number, reached.hex())
        self.tail = JournalTail(tail.anchor, head, tail.before, self._entries, tail.paged_bytes)

    # -- the entry under construction

    def _clear_draft(self) -> None:
        self._at: datetime | None = None
        self._count = 0
        self._opened = None
        self._incarnation: str | None = None
        self._accepted: list[Accepted] = []
        self._begun: list[str] = []
        self._resumed: list[str] = []
        self._reported: list[Reported] = []
        self._deleted: list[str] = []

    def _set_incarnation(self, incarnation: str) -> None:
        if self._incarnation not in (None, incarnation):
            self._close_entry()
        self._make_room()
        self._incarnation = incarnation

    def _make_room(self) -> None:
        if self._count == _MAX_PER_ENTRY:
            self._close_entry()
        self._count += 1

    def _close_entry(self) -> None:
        if not self._count and self._opened is None:
            return
        entry = JournalEntry(
            number=self.tail.head.number + len(self._waiting) + 1,
            at=self._now(),
            opened=self._opened,
            accepted=self._accepted,
            begun=self._begun,
            resumed=self._resumed,
            incarnation=self._incarnation,
            reported=self._reported,
            deleted=self._deleted,
        )
        self._waiting.append(_encode(entry))
        self._clear_draft()

    # -- pages

    def _write_page(self, last: int, reached: bytes) -> None:
        if self._entries:
            first = last - len(self._entries) + 1
            self._rows[page_key(first)] = b"\n".join([self.tail.before.encode(), *map(bytes, self._entries)])
            self._first_numbers.append(first)
        self.tail = msgspec.structs.replace(
            self.tail, before=reached.hex(), paged_bytes=self.tail.paged_bytes + self._bytes
        )
        self._entries, self._bytes, self._is_broken = [], 0, False

    def _drop_oldest(self) -> None:
        """Delete the oldest pages that are not needed; the anchor marks where the rest begins."""
        while self._first_numbers and self.tail.paged_bytes >= MIN_KEPT_BYTES:
            dropped = self._page_at(self._first_numbers[0])
            left = self.tail.paged_bytes - (sum(len(line.encode()) for line in dropped.entries) if dropped else 0)
            if left < MIN_KEPT_BYTES:
                return
            with suppress(KeyError):
                del self._rows[page_key(self._first_numbers.popleft())]
            self.tail = msgspec.structs.replace(self.tail, anchor=self._anchor(), paged_bytes=left)

    def _anchor(self) -> JournalMark:
        page = self._page_at(self._first_numbers[0]) if self._first_numbers else self.tail.page()
        return JournalMark(page.first - 1, page.before) if page else JOURNAL_START

    def _page_at(self, first: int) -> JournalPage | None:
        with suppress(KeyError, StoreError):
            return read_page(first, self._rows[page_key(first)])
        return None

    # -- the end as found at the start

    def _damage(self) -> StoreDamage | None:
        tail, page, before = self.tail, self.tail.page(), self._last_paged()
        ends = JournalMark(page.last, entry_hashes(page)[-1]) if page.entries else before
        if (before, ends) == (JournalMark(page.first - 1, page.before), tail.head):
            return None
        message = f"The end of the audit journal, number {tail.head.number}, was altered from outside the agent."
        return StoreDamage("journal_altered", message)

    def _last_paged(self) -> JournalMark:
        page = self._page_at(self._first_numbers[-1]) if self._first_numbers else None
        return JournalMark(page.last, entry_hashes(page)[-1]) if page and page.entries else self.tail.anchor

    def _continue_after(self) -> None:
        """Move the found entries to a page after all others, and continue from the last hash that was stored."""
        last = max([self._last_paged().number, *self._first_numbers]) + len(self._entries)
        head = self.tail.head
        self.tail = msgspec.structs.replace(self.tail, head=JournalMark(max(head.number, last), head.hash))
        self._is_broken = True
