"""The tombstones of a command store: ids, digests and outcomes of deleted commands, many in a row, read on demand."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec
import structlog

from broker.contract.states import ErrorCode, Outcome
from consumer.errors import StoreError
from consumer.ports import Tombstone
from consumer.store.row_check import UNREADABLE_ROW, verified, with_check, without_check

__all__ = ["MAX_TOMBSTONES", "TOMBSTONES", "Gone", "Tombstones"]


MAX_TOMBSTONES = 100_000
TOMBSTONES = "t/"
# A page is written again for each tombstone that is added, until it has this many: the fewer, the less each commit
# writes; the more, the faster the store is opened.
_PER_PAGE = 32
_log = structlog.get_logger(__name__)


class Gone(msgspec.Struct, array_like=True, frozen=True):
    """A deleted command: what is left of its result, some 120 bytes of JSON."""

    command_id: str
    digest: str
    code: ErrorCode | None = None

    def tombstone(self) -> Tombstone:
        """Return what the engine needs of it."""
        return Tombstone(self.command_id, self.digest, Outcome.ERROR if self.code else Outcome.SUCCESS, self.code)


class Page(msgspec.Struct, frozen=True):
    """A row of tombstones, which expire together."""

    gone: list[Gone]
    expires_at: datetime


class Rows(Protocol):
    """The rows of the store."""

    def __getitem__(self, key: str, /) -> bytes: ...

    def __setitem__(self, key: str, value: bytes, /) -> None: ...

    def discard(self, key: str) -> None:
        """Delete the row, if it exists."""

    def items(self, prefix: str) -> Iterable[tuple[str, bytes | None]]:
        """Yield the rows whose keys begin with this prefix, sorted; None for one that is not ours."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Page).decode


@dataclass
class _Known:
    """What is in memory of a page."""

    expires_at: datetime
    ids: list[str] = field(default_factory=list)


class Tombstones:
    """Writes within the transaction of the caller, who calls `roll_back` if that fails, and `committed` if not."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._pages: dict[str, _Known] = {}
        self._page_of: dict[str, str] = {}
        self._touched: set[str] = set()
        self.damage: str | None = None
        for key, row in rows.items(TOMBSTONES):
            page = self._decoded(key, row)
            if page is not None:
                self._remember(key, page)

    def __len__(self) -> int:
        return len(self._page_of)

    def __contains__(self, command_id: str) -> bool:
        return command_id in self._page_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._page_of)

    def find(self, command_id: str) -> Tombstone | None:
        """Return the tombstone of a deleted command, or None."""
        key = self._page_of.get(command_id)
        page = self._read(key) if key else None
        found = (gone.tombstone() for gone in (page.gone if page else ()) if gone.command_id == command_id)
        return next(found, None)

    def add(self, gone: list[Gone], expires_at: datetime) -> None:
        """Add tombstones; all of the last page then expire at this time, or later."""
        last = next(reversed(self._pages), None)
        page = self._read(last) if last and len(self._pages[last].ids) < _PER_PAGE else None
        earlier = page.gone if page else []
        key = last if last and page else self._next_key()
        for first in range(0, len(gone), _PER_PAGE):
            self._write(key, [*earlier, *gone[first : first + _PER_PAGE]], expires_at)
            earlier, key = [], self._next_key()

    def drop(self, now: datetime) -> int:
        """Drop the oldest page if it has expired, or if there are more than MAX_TOMBSTONES; return how many."""
        for key, known in self._pages.items():
            if known.expires_at <= now or len(self._page_of) > MAX_TOMBSTONES:
                self._touched.add(key)
                self._rows.discard(key)
                self._forget(key)
                return len(known.ids)
        return 0

    def committed(self) -> None:
        """Note that the transaction was committed."""
        self._touched.clear()

    def roll_back(self) -> None:
        """Read again what the failed transaction has changed."""
        for key in sorted(self._touched):
            self._forget(key)
            self._load(key)
        self._touched.clear()
        self._pages = dict(sorted(self._pages.items()))

    def _write(self, key: str, gone: list[Gone], expires_at: datetime) -> None:
        self._touched.add(key)
        known = self._pages.get(key)
        expires_at = max(expires_at, known.expires_at) if known else expires_at
        self._rows[key] = with_check(key, _encode(Page(gone, expires_at)))
        self._remember(key, Page(gone, expires_at))

    def _next_key(self) -> str:
        last = next(reversed(self._pages), f"{TOMBSTONES}{0:016d}")
        return f"{TOMBSTONES}{int(last[2:]) + 1:016d}"

    def _remember(self, key: str, page: Page) -> None:
        ids = [gone.command_id for gone in page.gone]
        self._pages[key] = _Known(page.expires_at, ids)
        self._page_of |= dict.fromkeys(ids, key)

    def _forget(self, key: str) -> None:
        for command_id in self._pages.pop(key, _Known(datetime.max)).ids:
            if self._page_of.get(command_id) == key:
                del self._page_of[command_id]

    def _load(self, key: str) -> None:
        page = self._read(key)
        if page is not None:
            self._remember(key, page)

    def _read(self, key: str) -> Page | None:
        try:
            return self._decoded(key, self._rows[key])
        except KeyError:
            return None
        except StoreError as error:
            if error.code not in UNREADABLE_ROW:
                raise
            return self._decoded(key, None)

    def _decoded(self, key: str, row: bytes | None) -> Page | None:
        """Return a page; of an altered one what can still be read."""
        try:
            return _decode(verified(key, row or b""))
        except ValueError as error:
            self.damage = (
                "Ids of deleted commands were damaged on the disk: these commands are not recognized any more."
            )
            _log.error("tombstones_damaged", row=key, reason=str(error))
        try:
            return _decode(without_check(row or b""))
        except ValueError:
            return None
