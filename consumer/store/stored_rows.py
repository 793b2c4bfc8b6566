"""The rows of live commands and of their results, read on demand, and their index."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from msgspec.structs import replace

from broker.contract.messages import Command
from broker.contract.states import ErrorCode, State
from consumer.errors import StoreError
from consumer.ports import EncodedFeedback, StoredCommand
from consumer.store.cache import DurableRows
from consumer.store.grouped_rows import GroupedRows
from consumer.store.index import CommandIndex
from consumer.store.row_check import UNREADABLE_ROW
from consumer.store.rows import (
    COMMAND,
    RESULT,
    CommandRow,
    HeadRow,
    Processing,
    assemble,
    decode_command_row,
    decode_result,
    encode,
    id_in_key,
    unreadable_command,
)
from consumer.store.tombstones import Gone, Tombstones
from consumer.store.unreadable_rows import UnreadableRows

__all__ = ["StoredRows"]


_T = TypeVar("_T")
# Pending commands that arrived while few were waiting stay in memory until they begin: reading one takes 6 µs.
_FRESH, _SHORT = 1024, 4096


class StoredRows:
    """Reads and writes. The caller calls `load` first and after a rollback, and `flush` before each commit."""

    def __init__(self, rows: DurableRows, tombstones: Tombstones, now: Callable[[], datetime]) -> None:
        self._rows = rows
        self._tombstones = tombstones
        self._now = now
        self._unreadable = UnreadableRows()
        self._left: dict[str, Gone] = {}  # of the results read or written so far: what a tombstone has

    def load(self, head: HeadRow) -> None:
        """Read which commands there are."""
        self._commands, self._results = GroupedRows(self._rows, COMMAND), GroupedRows(self._rows, RESULT)
        self._fresh: dict[str, StoredCommand] = {}
        self._drop_deleted()
        self.index = CommandIndex(self._rows, self._commands, self._results, head)
        self._commands.doubtful.difference_update(self.index.processing, self.index.completed)
        self._results.discard_members(
            [key for key in self._results.doubtful if key[len(RESULT) :] not in self.index.keys]
        )
        self._results.doubtful.clear()
        for key in self.index.unreadable:
            self._unreadable.note(key, None, "its id cannot be read")

    def _drop_deleted(self) -> None:
        """Delete again what a damaged row of a group does not show as deleted."""
        self._commands.discard_members(
            [key for key in self._commands.doubtful if (id_in_key(key) or "") in self._tombstones]
        )

    @property
    def grouped(self) -> bool:
        """Whether rows are in groups."""
        return bool(self._commands or self._results)

    @property
    def damage(self) -> str | None:
        """What is wrong with single rows, as far as they were read."""
        return self._unreadable.sentence

    def read(self, key: str, command_id: str) -> StoredCommand:
        """Return a live command; what the disk has altered of it is named in its `damage`."""
        fresh = self._fresh.get(key)
        if fresh is not None:
            return fresh
        arrived, damage = self._read_if_whole(self._commands, key, command_id, decode_command_row)
        if arrived is not None and key in self._commands.doubtful:
            arrived, damage = None, self._unreadable.note(key, command_id, "it may have been deleted")
        result: EncodedFeedback | None = None
        if key in self.index.completed:
            result, damage = self._read_if_whole(self._results, RESULT + command_id, command_id, decode_result)
        if result is not None and result.feedback.digest is not None:
            self._left[command_id] = Gone(command_id, result.feedback.digest, result.feedback.code)
        arrived = arrived or unreadable_command(command_id, self._now())
        stored = assemble(key, arrived, self.index.processing.get(key), result)
        if damage is None:
            return stored
        return replace(stored, damage=damage, state=State.DONE if key in self.index.completed else stored.state)

    def _read_if_whole(
        self, rows: GroupedRows, key: str, command_id: str, decode: Callable[[bytes], _T]
    ) -> tuple[_T | None, str | None]:
        try:
            return decode(rows[key]), None
        except (KeyError, ValueError) as error:
            reason = f"The row {key} of the command store cannot be read: {error}."
        except StoreError as error:
            if error.code not in UNREADABLE_ROW:
                raise
            reason = str(error)
        return None, self._unreadable.note(key, command_id, reason)

    def gone(self, command_id: str) -> Gone:
        """Return what a tombstone has of a command with a result."""
        known = self._left.pop(command_id, None)
        if known is not None:
            return known
        result, _ = self._read_if_whole(self._results, RESULT + command_id, command_id, decode_result)
        if result is None:
            return Gone(command_id, "unreadable", ErrorCode.INTERRUPTED)
        return Gone(command_id, result.feedback.digest or "", result.feedback.code)

    def add_command(
        self, key: str, command: Command, received_at: datetime, signed_by: tuple[str, ...], trace: str | None
    ) -> StoredCommand:
        """Add a pending command."""
        row = encode(CommandRow(command, received_at, signed_by, trace))
        self._commands.add(key, row)
        self.index.add(key, command.id)
        stored = StoredCommand(key, command, State.PENDING, received_at, signed_by=signed_by, trace=trace)
        if len(self._fresh) < _FRESH and len(row) <= _SHORT:
            self._fresh[key] = stored
        return stored

    def begin(self, key: str, begun: Processing) -> bool:
        """Move a command from pending to processing; return False if it is not pending."""
        self._fresh.pop(key, None)
        return self.index.begin(key, begun)

    def complete(self, key: str, command_id: str, result: EncodedFeedback) -> bool:
        """Move an open command to completed; return whether it was in processing."""
        self._fresh.pop(key, None)
        self._write_result(command_id, result)
        self._commands.doubtful.discard(key)
        return self.index.complete(key, command_id)

    def replace_result(self, command_id: str, result: EncodedFeedback) -> None:
        """Write another result of a completed command."""
        self._results.discard([RESULT + command_id])
        self._write_result(command_id, result)

    def _write_result(self, command_id: str, result: EncodedFeedback) -> None:
        self._results.add(RESULT + command_id, result.encoded)
        self._left[command_id] = Gone(command_id, result.feedback.digest or "", result.feedback.code)

    def delete(self, command_ids: Sequence[str]) -> list[Gone]:
        """Delete completed commands and return what is left of them; raises StoreError if one is not completed."""
        keys = [self._remove_completed(command_id) for command_id in command_ids]
        gone = [self.gone(command_id) for command_id in command_ids]
        self._commands.discard(keys)
        self._results.discard([RESULT + command_id for command_id in command_ids])
        return gone

    def _remove_completed(self, command_id: str) -> str:
        key = self.index.remove_completed(command_id)
        if key is None:
            raise StoreError(f"The command {command_id} has no result yet and cannot be deleted.", code="not_completed")
        return key

    def flush(self, *, together: bool) -> None:
        """Write what was added and deleted; what was added in groups, unless not `together`."""
        self._commands.flush(together=together)
        self._results.flush(together=together)

    def close(self) -> None:
        """Release what is kept in memory."""
        self._fresh.clear()
