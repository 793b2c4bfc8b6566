"""Types of the two commands about centralized configurations."""

from dataclasses import dataclass

__all__ = [
    "DiffSize",
    "Generation",
]


@dataclass(frozen=True)
class Generation:
    """One centralized configuration on the agent's disk. `sha256` is the digest of the content as delivered."""

    name: str
    sha256: str
    files: int
    group: str | None = None


@dataclass(frozen=True)
class DiffSize:
    """The size of the difference between two generations. Lines are compared per file; a moved line does not count."""

    files_added: int
    files_changed: int
    files_removed: int
    lines_added: int
    lines_removed: int
