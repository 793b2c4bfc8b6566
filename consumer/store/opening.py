"""Opens the command store of a state directory, and creates a new one if it is missing or damaged."""

import contextlib
import os
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from broker.system.files import resolved, sync_directory
from broker.system.trees import remove_tree
from consumer.errors import StoreDamaged, StoreError
from consumer.store.cache import DurableRows, is_known_setting
from consumer.store.command_store import DiskCommandStore
from consumer.store.creation import create_store, set_aside
from consumer.store.damage import StoreDamage
from consumer.store.inspection import StoreCondition, inspect_store
from consumer.store.lock_wait import LockWait, Stopping
from consumer.store.row_check import UNREADABLE_ROW
from consumer.store.state_directory import STORE_MADE, Ballast, Epochs, claim, make_private, take_lock, usable

__all__ = ["open_store"]


Now = Callable[[], datetime]


def open_store(
    directory: Path,
    *,
    now: Now,
    agent: str | None = None,
    enrolment_id: str | None = None,
    stopping: Stopping = lambda: False,
) -> DiskCommandStore:
    """Open or create the store; a damaged one is set aside and a new store_generation created.

    `agent` is the agent's name, to which the directory then belongs, `enrolment_id` that of its current enrolment. Once
    `stopping` returns true, the store waits for no lock any more. Raises StateDirectoryInUse if another process holds
    the directory, ExposedFileError if other users could write to it, StoreError if it belongs to another agent, if it
    cannot be used, or if the store was lost together with all records of the epochs of this enrolment. Whatever is not
    damage, such as a full disk or a read error, leaves all files as they are.
    """
    with usable(directory):
        make_private(directory)
        lock = take_lock(directory / "lock")
    try:
        with usable(directory):
            return _Opening(directory, lock, now, enrolment_id, LockWait(stopping)).open(agent)
    except BaseException:
        os.close(lock)
        raise


class _Opening:
    """One opening of the store in a state directory that this process has locked. Raises StoreError and OSError."""

    def __init__(self, directory: Path, lock: int, now: Now, enrolment_id: str | None, wait: LockWait) -> None:
        self._directory, self._lock, self._now, self._wait = directory, lock, now, wait
        self._store, self._marker = _place_of_store(directory), directory / STORE_MADE
        self._ballast = Ballast(directory / "ballast")
        self._epochs = Epochs(directory, enrolment_id)

    def open(self, agent: str | None) -> DiskCommandStore:
        # design.md: "A full disk stops new commands, not the reporting of old ones"
        self._ballast.release_for_opening()
        if agent is not None:
            claim(self._directory, agent)
        with contextlib.ExitStack() as on_failure:
            try:
                opened = self._open_or_create(on_failure)
            except StoreError as error:
                self._ballast.after_failure(error)
                raise
            opened.remember_epoch()
            if not self._marker.exists():
                self._marker.touch()
                sync_directory(self._directory)
            on_failure.pop_all()
        return opened

    def _open_or_create(self, on_failure: contextlib.ExitStack) -> DiskCommandStore:
        try:
            if self._look() is StoreCondition.WHOLE:
                return self._open_whole(on_failure)
            vanished = StoreDamage("store_vanished", "The command store had vanished; a new one was begun.")
            damage = vanished if self._marker.exists() else None  # without the marker it never held anything
        except StoreDamaged as error:
            damage = StoreDamage(error.code, f"The command store was damaged; a new one was begun. {error}")
        return self._create(damage, on_failure)

    def _look(self) -> StoreCondition:
        """Return the store's condition; raises StoreDamaged only if two looks agree, as a failed read can look so."""
        try:
            return inspect_store(self._store, self._wait, is_known_setting)
        except StoreDamaged:
            return inspect_store(self._store, self._wait, is_known_setting)

    def _open_whole(self, on_failure: contextlib.ExitStack) -> DiskCommandStore:
        try:
            return self._open(None, on_failure)
        except StoreDamaged as error:
            on_failure.close()
            self._look()
            raise StoreError(f"{error} Then it was found to be whole.", code="store_failed") from error
        except StoreError as error:
            if error.code in UNREADABLE_ROW:
                on_failure.close()
                raise StoreDamaged(str(error), code=error.code) from error
            raise

    def _open(self, damage: StoreDamage | None, on_failure: contextlib.ExitStack) -> DiskCommandStore:
        rows = DurableRows(self._store, self._wait)
        on_failure.callback(rows.close)
        return DiskCommandStore(rows, self._lock, self._ballast, self._epochs, damage, self._now)

    # design.md: "A damaged store is set aside, never deleted"
    def _create(self, damage: StoreDamage | None, on_failure: contextlib.ExitStack) -> DiskCommandStore:
        begun = f"{self._store.name}.new"
        for left in self._store.parent.glob(f"{begun}*"):  # by a creation that was killed
            with contextlib.suppress(OSError):
                remove_tree(left)
        new, aside = self._store.with_name(f"{begun}-{uuid.uuid4().hex[:12]}"), None
        if damage is not None:
            self._epochs.refuse_unknown()
            if _is_there(self._store):
                aside = self._store.with_name(f"commands.damaged-{self._now():%Y%m%dT%H%M%S.%f}")
                damage = StoreDamage(damage.code, f"{damage.message} It was set aside as {aside.name}.")
        create_store(new, self._epochs.latest, damage, self._now)  # first: without it, nothing is moved
        if aside is not None:
            set_aside(self._store, aside)
        else:
            remove_tree(self._store)
        new.rename(self._store)
        sync_directory(self._store.parent)
        return self._open(damage, on_failure)


def _is_there(path: Path) -> bool:
    """Return whether there is anything at this path; raises OSError if that cannot be determined."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _place_of_store(directory: Path) -> Path:
    """Return the directory of the store, which may be a link to it; raises StoreError if that leads nowhere."""
    store = directory / "commands"
    try:
        return resolved(store, strict=True) if store.is_symlink() else store
    except FileNotFoundError:
        raise StoreError(
            f"{store} leads to {store.readlink()}, which does not exist: is its file system mounted?",
            code="state_directory_unusable",
        ) from None
