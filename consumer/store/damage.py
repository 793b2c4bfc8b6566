"""Damage to a command store that was found on the disk."""

from dataclasses import dataclass

__all__ = ["DISK_FULL", "StoreDamage"]

DISK_FULL = "The disk is full: no command is accepted until there is space again."


@dataclass(frozen=True)
class StoreDamage:
    """The damage to a store: a code (snake_case, stable) and a sentence for the agent's status."""

    code: str
    message: str
