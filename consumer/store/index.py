"""The index of a command store: its commands, tombstones and cancels, in memory."""

from datetime import UTC, datetime

from consumer.errors import StoreError
from consumer.store.cache import DurableRows
from consumer.store.grouped_rows import GroupedRows
from consumer.store.row_check import UNREADABLE_ROW
from consumer.store.rows import (
    CANCEL,
    DELETED,
    RESULT,
    DeletedRow,
    HeadRow,
    Processing,
    decode_command_row,
    decode_deleted_row,
    decode_time,
    id_in_key,
)

__all__ = ["CommandIndex"]


class CommandIndex:
    """The state of each live command, by its row's key. After a rollback, rebuild it from the rows.

    `pending` and `completed` map keys to command ids, `processing` maps keys to entries of the head row, `keys` maps
    ids to keys. `cancels` holds their expiry by id. `deleted` has the rows, by their keys, of commands that an earlier
    version deleted, and `kept` the ids of their results, which it kept. `unreadable` are keys whose id is unknown.
    """

    def __init__(self, rows: DurableRows, commands: GroupedRows, results: GroupedRows, head: HeadRow) -> None:
        self.pending: dict[str, str] = {}
        self.processing: dict[str, Processing] = {}
        self.completed: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.cancels: dict[str, datetime] = {}
        self.deleted: dict[str, DeletedRow] = {}
        self.kept: set[str] = set()
        self.unreadable: list[str] = []
        done = {key[len(RESULT) :] for key in results.all_keys()}
        for key in commands.all_keys():
            command_id = id_in_key(key) or self._id_in_row(rows, key)
            if command_id is not None:
                self._load_command(key, command_id, head, done)
        for key in rows.keys(DELETED):
            self.deleted[key] = rows.read(key, decode_deleted_row)
            self.kept.update(self.deleted[key].command_ids)
        for key in rows.keys(CANCEL):
            self.cancels[key[len(CANCEL) :]] = _expiry(rows, key)

    def _id_in_row(self, rows: DurableRows, key: str) -> str | None:
        try:
            return rows.read(key, decode_command_row).command.id
        except StoreError as error:
            if error.code not in UNREADABLE_ROW:
                raise
            self.unreadable.append(key)
            return None

    def _load_command(self, key: str, command_id: str, head: HeadRow, done: set[str]) -> None:
        self.add(key, command_id)
        if command_id in done:
            self.complete(key, command_id)
        elif key in head.processing:
            self.begin(key, head.processing[key])

    def add(self, key: str, command_id: str) -> None:
        """Add a pending command."""
        self.pending[key] = command_id
        self.keys[command_id] = key

    def begin(self, key: str, begun: Processing) -> bool:
        """Move a command from pending to processing; return False if it is not pending."""
        if self.pending.pop(key, None) is None:
            return False
        self.processing[key] = begun
        return True

    def in_processing(self) -> list[tuple[str, str]]:
        """Return the keys and ids of the commands in processing, in order."""
        ids = {key: command_id for command_id, key in self.keys.items()}
        return [(key, ids[key]) for key in self.processing]

    def is_open(self, key: str, command_id: str) -> bool:
        """Whether this live command has no result yet."""
        return self.keys.get(command_id) == key and key not in self.completed

    def complete(self, key: str, command_id: str) -> bool:
        """Move an open command to completed; return whether it was in processing."""
        self.pending.pop(key, None)
        self.completed[key] = command_id
        return self.processing.pop(key, None) is not None

    def remove_completed(self, command_id: str) -> str | None:
        """Remove a completed command and return its key; None if it is not completed."""
        key = self.keys.get(command_id, "")
        if self.completed.pop(key, None) is None:
            return None
        return self.keys.pop(command_id)

    def find_id(self, prefix: str) -> str | None:
        """Return the id, of a live or a deleted command, that starts with `prefix`."""
        return next((command_id for command_id in (*self.keys, *self.kept) if command_id.startswith(prefix)), None)


def _expiry(rows: DurableRows, key: str) -> datetime:
    """Return when a cancel expires; never, if the disk has altered that."""
    try:
        return rows.read(key, decode_time)
    except StoreError as error:
        if error.code not in UNREADABLE_ROW:
            raise
        return datetime.max.replace(tzinfo=UTC)
