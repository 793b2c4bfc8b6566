"""The index of a command store: its commands, tombstones and cancels, in memory."""

from collections.abc import Iterable
from datetime import datetime

from consumer.store.cache import DurableRows
from consumer.store.rows import (
    CANCEL,
    COMMAND,
    DELETED,
    RESULT,
    DeletedRow,
    HeadRow,
    Processing,
    decode_command_row,
    decode_deleted_row,
    decode_time,
)

__all__ = ["CommandIndex"]


class CommandIndex:
    """The state of each command, by its row's key. After a rollback, rebuild it from the rows.

    `pending` and `completed` map keys to command ids, `processing` maps keys to entries of the head row, `keys` maps
    ids to keys. `tombstones` and `cancels` hold their expiry by id, `deleted` the rows of tombstones by key.
    """

    def __init__(self, rows: DurableRows, keys: Iterable[str], head: HeadRow) -> None:
        self.pending: dict[str, str] = {}
        self.processing: dict[str, Processing] = {}
        self.completed: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.tombstones: dict[str, datetime] = {}
        self.deleted: dict[str, DeletedRow] = {}
        self.cancels: dict[str, datetime] = {}
        keys = list(keys)
        results = {key[2:] for key in keys if key.startswith(RESULT)}
        for key in keys:
            if key.startswith(COMMAND):
                self._load_command(key, rows.read(key, decode_command_row).command.id, head, results)
            elif key.startswith(DELETED):
                self.add_tombstones(key, rows.read(key, decode_deleted_row))
            elif key.startswith(CANCEL):
                self.cancels[key[2:]] = rows.read(key, decode_time)

    def _load_command(self, key: str, command_id: str, head: HeadRow, results: set[str]) -> None:
        self.add(key, command_id)
        if command_id in results:
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

    def next_deleted_key(self) -> str:
        """Return the key for the next row of deleted commands."""
        last = next(reversed(self.deleted), f"{DELETED}{0:016d}")
        return f"{DELETED}{int(last[2:]) + 1:016d}"

    def add_tombstones(self, key: str, deleted: DeletedRow) -> None:
        """Add the tombstones of commands that were deleted together."""
        self.deleted[key] = deleted
        self.tombstones.update(dict.fromkeys(deleted.command_ids, deleted.expires_at))

    def remove_tombstones(self, key: str) -> list[str]:
        """Remove the tombstones of one row; return the ids of their commands."""
        command_ids = self.deleted.pop(key).command_ids
        for command_id in command_ids:
            del self.tombstones[command_id]
        return command_ids

    def find_id(self, prefix: str) -> str | None:
        """Return the id, of a live or a deleted command, that starts with `prefix`."""
        ids = (command_id for known in (self.keys, self.tombstones) for command_id in known)
        return next((command_id for command_id in ids if command_id.startswith(prefix)), None)
