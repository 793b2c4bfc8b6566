"""The events of the audit journal, one for each change of a command, as `acm-agent journal` lists them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.text import rfc3339

if TYPE_CHECKING:
    from broker.contract.journal import JournalEntry

__all__ = ["JournalEvent", "read_events"]


@dataclass(frozen=True)
class JournalEvent:
    """What happened to a command, or to the store; `number` is that of its entry, which may have several events.

    `at` is None, and so is everything but the number, of an entry that cannot be read: its event is `unreadable`.
    """

    number: int
    at: datetime | None
    event: str
    command_id: str | None = None
    detail: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the event as it is printed."""
        return {
            "number": self.number,
            "at": rfc3339(self.at),
            "event": self.event,
            "command_id": self.command_id,
            "detail": self.detail,
        }


def read_events(state: Path) -> list[JournalEvent]:
    """Return all events of the journal in a state directory, the oldest first; raises StoreError."""
    from consumer.store.reader import read_journal

    return [event for page in read_journal(state).pages for event in _events_of(page.first, page.entries)]


def _events_of(first: int, lines: tuple[str, ...]) -> Iterator[JournalEvent]:
    import msgspec

    from broker.contract.journal import JournalEntry

    decode = msgspec.json.Decoder(JournalEntry).decode
    for number, line in enumerate(lines, first):
        try:
            entry = decode(line)
        except (msgspec.DecodeError, UnicodeError):
            yield JournalEvent(number, None, "unreadable")
        else:
            yield from _events(entry)


def _events(entry: "JournalEntry") -> Iterator[JournalEvent]:
    number, at = entry.number, entry.at
    if entry.opened is not None:
        store = entry.opened.message or f"store {entry.opened.store_generation}"
        yield JournalEvent(number, at, "opened", detail=store)
    for accepted in entry.accepted:
        sequence = f" {accepted.sequence.epoch}/{accepted.sequence.number}" if accepted.sequence else ""
        yield JournalEvent(number, at, "accepted", accepted.id, f"{accepted.type}{sequence}")
    for command_id in entry.begun:
        yield JournalEvent(number, at, "begun", command_id)
    for command_id in entry.resumed:
        yield JournalEvent(number, at, "resumed", command_id)
    for reported in entry.reported:
        yield JournalEvent(number, at, "reported", reported.id, reported.code or reported.outcome)
    for command_id in entry.deleted:
        yield JournalEvent(number, at, "deleted", command_id)
