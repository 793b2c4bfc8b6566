"""The difference between two directories of files."""

from collections import Counter
from pathlib import Path

from broker.contract.configurations import DiffSize
from consumer.configuration.generations import hashes_of

__all__ = [
    "difference",
]


def difference(before: Path | None, after: Path) -> DiffSize:
    """Count the changes from one directory to another; None is an empty directory."""
    old, new = hashes_of(before) if before else {}, hashes_of(after)
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    added = removed = 0
    for name in changed | (old.keys() ^ new.keys()):
        lines_before = _lines(before / name if before else None)
        lines_after = _lines(after / name)
        added += (lines_after - lines_before).total()
        removed += (lines_before - lines_after).total()
    return DiffSize(len(new.keys() - old.keys()), len(changed), len(old.keys() - new.keys()), added, removed)


def _lines(path: Path | None) -> Counter[bytes]:
    if path is None or not path.is_file():
        return Counter()
    try:
        with path.open("rb") as file:
            return Counter(line.rstrip(b"\r\n") for line in file)
    except OSError:  # the service may have made private files in the active generation
        return Counter()
