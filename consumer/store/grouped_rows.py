"""Rows that are written together share one row of the database: commands that arrived in one turn, results of one turn.

A group is two rows. The first has a line for each member, its key and its content, and is written once. The second
names the members that are left, and is written again when some of them are deleted; with the last one both are deleted.
A row that is written alone is a row of its own, as earlier versions wrote all of them.

The keys are in both rows, so either can be damaged without a command being forgotten. If it is the second, it is not
known which members were deleted: then all are listed, and are `doubtful`. It is not written again before its reader has
taken out of `doubtful` those whose fate it knows, so that the next process has the same doubt.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from consumer.errors import StoreError
from consumer.store.row_check import UNREADABLE_ROW, verified, with_check

__all__ = ["CONTENT", "MEMBERS", "GroupReader", "GroupedRows", "group_key_in"]


CONTENT, MEMBERS = "g/", "n/"
# The more members a group has, the fewer rows are written; the fewer, the less is read for one of them.
_MAX_MEMBERS = 128
_MAX_BYTES = 1 << 16
_log = structlog.get_logger(__name__)


class _Rows(Protocol):
    """The rows of the database."""

    def __getitem__(self, key: str, /) -> bytes: ...

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with this prefix, sorted."""


class _WritableRows(_Rows, Protocol):
    """Rows within the transaction of the caller."""

    def __setitem__(self, key: str, value: bytes, /) -> None: ...

    def add(self, key: str, value: bytes) -> None:
        """Write a new row; raises StoreError if the key exists."""

    def discard(self, key: str) -> None:
        """Delete the row, if it exists."""


class _Members(msgspec.Struct):
    """The second row of a group: the keys of its members, None for one that was deleted."""

    keys: list[str | None]


@dataclass(eq=False, slots=True)
class _Group:
    """What is in memory of a group: all that its deletion needs, so that no content is read for that."""

    name: str
    keys: list[str | None]
    left: int
    _places: dict[str | None, int] | None = None

    def place(self, key: str) -> int:
        """Return where a member is; the index of them is made when the first one is looked for."""
        if self._places is None:
            self._places = {member: place for place, member in enumerate(self.keys)}
        return self._places[key]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Members).decode


def group_key_in(content: bytes) -> str:
    """Return the key that the first row of a group should have: its last line."""
    return content.rpartition(b"\n")[2].decode(errors="replace")


class GroupReader:
    """Reads the rows of one kind, by the prefix of their keys, whether they are in groups or not."""

    def __init__(self, rows: _Rows, kind: str) -> None:
        self._rows = rows
        self._kind = kind
        self._group_of: dict[str, _Group] = {}
        self._latest: tuple[_Group | None, Sequence[bytes]] = (None, ())
        self._last_number = 0
        self.doubtful: set[str] = set()
        found = {key[len(prefix) :] for prefix in (CONTENT, MEMBERS) for key in rows.keys(prefix + kind)}
        for name in sorted(found, reverse=True):
            self._load(name)

    def all_keys(self) -> list[str]:
        """Return the keys of all rows of this kind, sorted."""
        return sorted([*self._rows.keys(self._kind), *self._group_of])

    def __getitem__(self, key: str) -> bytes:
        """Return a row without its check; raises KeyError, and ValueError if it was altered since it was written."""
        group = self._group_of.get(key)
        if group is None:
            return verified(key, self._rows[key])
        line = self._lines(group)[group.place(key)]
        return verified(key, line.partition(b"\t")[2])

    def _lines(self, group: _Group) -> Sequence[bytes]:
        latest, lines = self._latest
        if latest is not group:
            lines = self._rows[CONTENT + group.name].split(b"\n")[:-1]
            self._latest = (group, lines)
        if len(lines) != len(group.keys):
            raise ValueError(f"it has {len(lines)} lines for {len(group.keys)} members")
        return lines

    def _load(self, name: str) -> None:
        number = name.removeprefix(self._kind)
        self._last_number = max(self._last_number, int(number) if number.isdecimal() else 0)
        members = self._members(name)
        self._remember(_Group(name, members, sum(key is not None for key in members)))

    def _remember(self, group: _Group) -> None:
        self._group_of.update((key, group) for key in group.keys if key is not None)

    def _members(self, name: str) -> list[str | None]:
        try:
            return _decode(verified(MEMBERS + name, self._readable(MEMBERS + name))).keys
        except ValueError as error:
            _log.error("row_unreadable", row=MEMBERS + name, reason=str(error))
        lines = self._readable(CONTENT + name).split(b"\n")[:-1]
        newer = {*self._rows.keys(self._kind), *self._group_of}  # as a result that was restored
        found = [None if key in newer else key for key in map(self._key_in, lines)]
        self.doubtful.update(key for key in found if key is not None)
        return found

    def _readable(self, key: str) -> bytes:
        """Return the content of a row, as far as there is any."""
        try:
            return self._rows[key]
        except KeyError:
            return b""
        except StoreError as error:
            if error.code not in UNREADABLE_ROW:
                raise
            return b""

    def _key_in(self, line: bytes) -> str | None:
        key = line.partition(b"\t")[0].decode(errors="replace")
        return key if key.startswith(self._kind) else None


class GroupedRows(GroupReader):
    """Reads and writes. The caller calls `flush` before each commit; after a rollback, create it again."""

    _rows: _WritableRows

    def __init__(self, rows: _WritableRows, kind: str) -> None:
        super().__init__(rows, kind)
        self._added: dict[str, bytes] = {}
        self._touched: set[_Group] = set()

    def __bool__(self) -> bool:
        """Whether there are groups."""
        return bool(self._group_of)

    def add(self, key: str, row: bytes) -> None:
        """Write a new row, an object that is not empty, with the next `flush`."""
        self._added[key] = row

    def __getitem__(self, key: str) -> bytes:
        """Return a row without its check; raises KeyError, and ValueError if it was altered since it was written."""
        added = self._added.get(key)
        return super().__getitem__(key) if added is None else added

    def discard(self, keys: Iterable[str]) -> None:
        """Delete rows, if they exist."""
        for key in keys:
            group = self._group_of.pop(key, None)
            if group is not None:
                group.keys[group.place(key)] = None
                group.left -= 1
                self._touched.add(group)
            elif self._added.pop(key, None) is None:
                self._rows.discard(key)

    def discard_members(self, keys: Iterable[str]) -> None:
        """As `discard`, but leave rows of their own alone."""
        members = [key for key in keys if key in self._group_of]
        self.discard(members)
        self.doubtful.difference_update(members)

    def flush(self, *, together: bool) -> None:
        """Write what was added and deleted; what was added in groups, unless not `together`."""
        for added in _portions(self._added, _MAX_MEMBERS if together else 1):
            if len(added) == 1:
                self._rows.add(added[0][0], with_check(*added[0]))
            else:
                self._write_group(added)
        self._added.clear()
        in_doubt = {group for group in self._touched if self.doubtful and not self.doubtful.isdisjoint(group.keys)}
        for group in self._touched - in_doubt:
            if group.left:
                self._write_members(group)
            else:
                self._rows.discard(CONTENT + group.name)
                self._rows.discard(MEMBERS + group.name)
        self._touched = in_doubt

    def _write_group(self, added: list[tuple[str, bytes]]) -> None:
        self._last_number += 1
        group = _Group(f"{self._kind}{self._last_number:016d}", [key for key, _ in added], len(added))
        lines = [b"%b\t%b" % (key.encode(), with_check(key, row)) for key, row in added]
        self._rows.add(CONTENT + group.name, b"\n".join([*lines, (CONTENT + group.name).encode()]))
        self._write_members(group)
        self._remember(group)
        self._latest = (group, lines)

    def _write_members(self, group: _Group) -> None:
        key = MEMBERS + group.name
        self._rows[key] = with_check(key, _encode(_Members(group.keys)))


def _portions(added: dict[str, bytes], most: int) -> Iterator[list[tuple[str, bytes]]]:
    """Yield rows in portions that are one group each, of at most so many."""
    portion: list[tuple[str, bytes]] = []
    size = 0
    for item in added.items():
        if portion and (len(portion) == most or size + len(item[1]) > _MAX_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += len(item[1])
    if portion:
        yield portion
