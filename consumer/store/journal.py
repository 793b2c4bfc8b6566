"""Writes the audit journal of a command store, within the store's own commits.

The newest entries are a part of the store's head row, which a commit writes anyway. When they fill a page, that becomes
a row of its own, written once and dropped when it is among the oldest.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
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

__all__ = [
    "Journal",
    "JournalTail",
    "Rows",
    "page_key",
    "page_number",
    "read_page",
]


# Entries become a page once they are as large as the first of these: the smaller, the less is written with each commit,
# and the more pages there are. A commit that brings many more fills pages of the second size.
_PAGE_BYTES = 1 << 12
_FULL_PAGE_BYTES = 1 << 15
# An id and a type may take half a KiB each: an entry of this many commands fits into a message whatever they are.
_MAX_PER_ENTRY = 64
_PREFIX = "j/"
_HASH = re.compile(r"[0-9a-f]{64}")
_encode = msgspec.json.Encoder().encode


class Rows(Protocol):
    """Where pages are kept by their keys, within the transaction of whoever writes them."""

    def __getitem__(self, key: str, /) -> bytes: ...

    def __setitem__(self, key: str, value: bytes, /) -> None: ...

    def __delitem__(self, key: str, /) -> None: ...


@dataclass(frozen=True)
class JournalTail:
    """What the store's head row holds of the journal.

    `anchor` is the mark before the first entry that is kept, `head` the one at the last entry. `entries` are those that
    are in no page yet, after the hash `before`; the full pages have `paged_bytes`.
    """

    anchor: JournalMark = JOURNAL_START
    head: JournalMark = JOURNAL_START
    before: str = JOURNAL_START.hash
    entries: list[msgspec.Raw] = field(default_factory=list)
    paged_bytes: int = 0

    def page(self) -> JournalPage:
        """Return the entries that are in no page yet, as one."""
        first = self.head.number - len(self.entries) + 1
        return JournalPage(max(first, 1), self.before, tuple(_text(bytes(line)) for line in self.entries))


def page_key(first: int) -> str:
    """Return the key of the page whose first entry has this number; keys have the order of the numbers."""
    return f"{_PREFIX}{first:016d}"


def page_number(key: str) -> int | None:
    """Return the number of the first entry of the page with this key; None for the key of something else."""
    digits = key.removeprefix(_PREFIX)
    return int(digits) if digits != key and digits.isdecimal() else None


def read_page(first: int, row: bytes) -> JournalPage:
    """Return the page in a row. What somebody else has put there gives entries that do not fit the chain."""
    before, *lines = _text(row).split("\n")
    return JournalPage(first, before if _HASH.fullmatch(before) else JOURNAL_START.hash, tuple(lines))


def _text(row: bytes) -> str:
    return row.decode(errors="replace")


class Journal:
    """The journal's end, and what is noted until the next `flush`.

    `firsts` are the numbers with which the pages in `rows` begin, in order. `opened` is what a new journal begins with.
    `damage` says in a sentence that the end is not as it was left, or is None; the journal then goes on behind it, so
    that the break stays to be seen. After a rollback, make the journal anew.
    """

    def __init__(
        self, rows: Rows, tail: JournalTail, firsts: Iterable[int], now: Callable[[], datetime], opened: Opened
    ) -> None:
        self._rows = rows
        self._now = now
        self._firsts = deque(firsts)
        self._waiting: list[bytes] = []
        self._opened: Opened | None = None
        self._clear_draft()
        self.tail = tail
        self._entries = [msgspec.Raw(bytes(line)) for line in tail.entries]
        self._bytes = sum(len(bytes(line)) for line in tail.entries)
        self._is_broken = False
        self.damage = self._damage()
        if self.damage:
            self._go_on_behind()
            self._opened = msgspec.structs.replace(opened, message=self.damage)
        elif not tail.head.number:
            self._opened = opened

    def accepted(self, command: Command) -> None:
        """Note that a command was stored."""
        self._make_room()
        self._accepted.append(Accepted(command.id, command.type, command_sha256(command), command.sequence))

    def begun(self, command_id: str, incarnation: str) -> None:
        """Note that this incarnation of the agent runs a command."""
        self._speak_for(incarnation)
        self._begun.append(command_id)

    def resumed(self, command_id: str, incarnation: str) -> None:
        """Note that this incarnation runs a command again, which an earlier one had begun."""
        self._speak_for(incarnation)
        self._resumed.append(command_id)

    def reported(self, command_id: str, result: Feedback) -> None:
        """Note a command's result."""
        self._make_room()
        self._reported.append(Reported(command_id, result.digest, result.outcome, result.code))

    def deleted(self, command_id: str) -> None:
        """Note that a command was deleted."""
        self._make_room()
        self._deleted.append(command_id)

    def flush(self) -> bool:
        """Write what was noted, and drop what is too old; return whether there was anything. Call it before a commit.

        `tail` is then what the head row must hold.
        """
        self._close_entry()
        if not self._waiting:
            return False
        pages = len(self._firsts)
        self._append_waiting()
        if len(self._firsts) > pages:
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

    # -- the entry that is being noted

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

    def _speak_for(self, incarnation: str) -> None:
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
            self._firsts.append(first)
        self.tail = replace(self.tail, before=reached.hex(), paged_bytes=self.tail.paged_bytes + self._bytes)
        self._entries, self._bytes, self._is_broken = [], 0, False

    def _drop_oldest(self) -> None:
        """Drop the oldest pages that are not needed; the anchor tells what is gone."""
        while self._firsts and self.tail.paged_bytes >= MIN_KEPT_BYTES:
            dropped = self._page_at(self._firsts[0])
            left = self.tail.paged_bytes - (sum(len(line.encode()) for line in dropped.entries) if dropped else 0)
            if left < MIN_KEPT_BYTES:
                return
            with suppress(KeyError):
                del self._rows[page_key(self._firsts.popleft())]
            self.tail = replace(self.tail, anchor=self._anchor(), paged_bytes=left)

    def _anchor(self) -> JournalMark:
        page = self._page_at(self._firsts[0]) if self._firsts else self.tail.page()
        return JournalMark(page.first - 1, page.before) if page else JOURNAL_START

    def _page_at(self, first: int) -> JournalPage | None:
        with suppress(KeyError, StoreError):
            return read_page(first, self._rows[page_key(first)])
        return None

    # -- the end as it was found

    def _damage(self) -> str | None:
        tail, page, before = self.tail, self.tail.page(), self._last_paged()
        ends = JournalMark(page.last, entry_hashes(page)[-1]) if page.entries else before
        if (before, ends) == (JournalMark(page.first - 1, page.before), tail.head):
            return None
        return f"The end of the audit journal, number {tail.head.number}, was altered from outside the agent."

    def _last_paged(self) -> JournalMark:
        page = self._page_at(self._firsts[-1]) if self._firsts else None
        return JournalMark(page.last, entry_hashes(page)[-1]) if page and page.entries else self.tail.anchor

    def _go_on_behind(self) -> None:
        """Leave what was found in a page of its own, behind all others, and go on from the hash that was the last."""
        behind = max([self._last_paged().number, *self._firsts]) + len(self._entries)
        head = self.tail.head
        self.tail = replace(self.tail, head=JournalMark(max(head.number, behind), head.hash))
        self._is_broken = True
