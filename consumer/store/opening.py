"""Opens the command store of a state directory, and creates a new one if it is missing or damaged."""

import os
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from broker.contract.journal import Opened
from broker.system.files import sync_directory
from consumer.errors import StoreError
from consumer.store.cache import DurableRows, is_known_setting
from consumer.store.command_store import DiskCommandStore
from consumer.store.damage import StoreDamage
from consumer.store.journal import Journal, JournalTail
from consumer.store.reader import inspect_store
from consumer.store.rows import GENERATION, HEAD, SENTINEL, HeadRow, encode
from consumer.store.state_directory import Ballast, Epochs, make_private, take_lock

__all__ = ["open_store"]


Now = Callable[[], datetime]


def open_store(directory: Path, *, now: Now, enrolment_id: str | None = None) -> DiskCommandStore:
    """Open or create the store; a damaged one is set aside and a new store_generation created.

    `enrolment_id` is that of the agent's current enrolment. Raises StateDirectoryInUse if another process holds the
    directory, ExposedFileError if other users could write to it, StoreError if it cannot be used, or if the store was
    lost together with all records of the epochs of this enrolment.
    """
    try:
        make_private(directory)
        lock = take_lock(directory / "lock")
    except OSError as error:
        raise StoreError(
            f"The state directory {directory} cannot be used: {error.strerror}.", code="state_directory_unusable"
        ) from error
    try:
        epochs = Epochs(directory, enrolment_id)
        opened = _open_or_begin(directory / "commands", directory / "store-made", lock, now, epochs)
        opened.remember_epoch()
        (directory / "store-made").touch()
        sync_directory(directory)
    except BaseException:
        os.close(lock)
        raise
    return opened


def _open_or_begin(store: Path, marker: Path, lock: int, now: Now, epochs: Epochs) -> DiskCommandStore:
    damage = _find_damage(store, expected=marker.exists())
    if damage is None:
        try:
            return _open_at(store, lock, None, now, epochs)
        except StoreError as error:
            damage = StoreDamage(error.code, f"The command store was damaged; a new one was created. {error}")
    epochs.refuse_unknown()
    # design.md: "A damaged store is set aside, never deleted"
    if store.exists():
        aside = store.with_name(f"commands.damaged-{now():%Y%m%dT%H%M%S.%f}")
        store.rename(aside)
        damage = StoreDamage(damage.code, f"{damage.message} It was set aside as {aside.name}.")
    return _open_at(store, lock, damage, now, epochs)


def _find_damage(store: Path, *, expected: bool) -> StoreDamage | None:
    """Look at the store in this directory; None if it can be used, or if none is there and none was `expected`."""
    try:
        condition = inspect_store(store)
    except StoreError as error:
        return StoreDamage("store_unreadable", f"The command store was damaged ({error}); a new one was begun.")
    if condition is None:
        vanished = StoreDamage("store_vanished", "The command store had vanished; a new one was begun.")
        return vanished if expected else None
    known = all(is_known_setting(key, value) for key, value in condition.settings)
    if condition.is_sound and condition.has_sentinel and known:
        return None
    return StoreDamage("store_corrupt", "The command store was damaged; a new one was begun.")


def _open_at(store: Path, lock: int, damage: StoreDamage | None, now: Now, epochs: Epochs) -> DiskCommandStore:
    rows = DurableRows(store)
    try:
        if SENTINEL not in rows:
            _begin(rows, epochs.latest, damage, now)
        return DiskCommandStore(rows, lock, Ballast(store.with_name("ballast")), epochs, damage, now)
    except BaseException:
        rows.close()
        raise


def _begin(rows: DurableRows, closed_epoch: int, damage: StoreDamage | None, now: Now) -> None:
    generation = uuid.uuid4().hex
    with rows.transaction():
        opened = Opened(generation, 0, damage.message if damage else None)
        journal = Journal(rows, JournalTail(), (), now, opened)
        journal.flush()
        rows[GENERATION] = generation.encode()
        rows[HEAD] = encode(HeadRow(closed_epoch=closed_epoch, journal=journal.tail))
        rows[SENTINEL] = b"1"
