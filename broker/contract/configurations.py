"""What both commands about a centralized configuration say of it."""

from dataclasses import dataclass

__all__ = [
    "DiffSize",
    "Generation",
]


@dataclass(frozen=True)
class Generation:
    """One centralized configuration on the agent's disk. `sha256` is of the content as it was delivered."""

    name: str
    sha256: str
    files: int
    group: str | None = None


@dataclass(frozen=True)
class DiffSize:
    """How far two generations lie apart. Lines are compared by file, and a line that only moved does not count."""

    files_added: int
    files_changed: int
    files_removed: int
    lines_added: int
    lines_removed: int
