"""What is wrong with a command store that was found on the disk."""

from dataclasses import dataclass
from pathlib import Path

from consumer.errors import StoreError
from consumer.store.cache import is_known_setting
from consumer.store.reader import inspect_store

__all__ = ["StoreDamage", "find_damage"]


@dataclass(frozen=True)
class StoreDamage:
    """One thing that is wrong with a store: a code (snake_case, stable) and a sentence for the agent's status."""

    code: str
    message: str


def find_damage(store: Path, *, expected: bool) -> StoreDamage | None:
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
