"""What is wrong with a command store that was found on the disk."""

from dataclasses import dataclass

__all__ = ["StoreDamage"]


@dataclass(frozen=True)
class StoreDamage:
    """One thing that is wrong with a store: a code (snake_case, stable) and a sentence for the agent's status."""

    code: str
    message: str
