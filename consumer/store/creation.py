"""Creates a command store beside the place where it belongs, and sets a damaged one aside."""

import contextlib
import errno
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from broker.contract.journal import Opened
from broker.system.trees import remove_tree, sync_tree
from consumer.store.cache import DurableRows
from consumer.store.damage import StoreDamage
from consumer.store.journal import Journal, JournalTail
from consumer.store.rows import GENERATION, HEAD, SENTINEL, HeadRow, encode

__all__ = ["create_store", "set_aside"]


def create_store(directory: Path, closed_epoch: int, damage: StoreDamage | None, now: Callable[[], datetime]) -> None:
    """Create a store of a new generation in this new directory, durably.

    `damage` is that of the store before it. Raises StoreError and OSError, and leaves nothing behind then.
    """
    try:
        _write(directory, closed_epoch, damage, now)
        sync_tree(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            remove_tree(directory)
        raise


def _write(directory: Path, closed_epoch: int, damage: StoreDamage | None, now: Callable[[], datetime]) -> None:
    generation = uuid.uuid4().hex
    with contextlib.closing(DurableRows(directory)) as rows, rows.transaction():
        opened = Opened(generation, 0, damage.message if damage else None)
        journal = Journal(rows, JournalTail(), (), now, opened)
        journal.flush()
        rows[GENERATION] = generation.encode()
        rows[HEAD] = encode(HeadRow(closed_epoch=closed_epoch, journal=journal.tail))
        rows[SENTINEL] = b"1"


def set_aside(store: Path, aside: Path) -> None:
    """Rename the directory of a store, with everything in it; raises OSError."""
    try:
        store.rename(aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A directory in a lower layer of an overlay cannot be renamed; the files in it can.
        aside.mkdir(mode=0o700)
        for path in store.iterdir():
            path.rename(aside / path.name)
        store.rmdir()
