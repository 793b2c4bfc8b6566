"""The difference between two generations."""

from collections import Counter
from pathlib import Path

from broker.contract.configurations import DiffSize
from consumer.configuration.found_files import names_below, open_regular
from consumer.configuration.generations import Generations, Record

__all__ = [
    "difference",
]


_MAX_COMPARED_BYTES = 4 << 20  # of one file: its lines are counted in memory


def difference(generations: Generations, before: Record | None, after: Record, staged: Path) -> DiffSize:
    """Count the changes from the files of a generation, as they are now, to those of another one, which are staged.

    None: there is no earlier generation. Files that the service has made are not compared.
    """
    old = _hashes_now(generations, before) if before else {}
    directory = generations.directory(before.name) if before else None
    new = after.files
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    added = removed = 0
    for name in changed | (old.keys() ^ new.keys()):
        lines_before = _lines(directory / name) if directory and name in old else Counter()
        lines_after = _lines(staged / name) if name in new else Counter()
        added += (lines_after - lines_before).total()
        removed += (lines_before - lines_after).total()
    return DiffSize(len(new.keys() - old.keys()), len(changed), len(old.keys() - new.keys()), added, removed)


def _hashes_now(generations: Generations, record: Record) -> dict[str, str]:
    """Return the hash of each applied file that is still there, and an empty one for each that was altered."""
    found, altered = names_below(generations.directory(record.name)), generations.altered(record)
    return {name: "" if name in altered else sha256 for name, sha256 in record.files.items() if found.get(name)}


def _lines(path: Path) -> Counter[bytes]:
    try:
        if path.lstat().st_size > _MAX_COMPARED_BYTES:
            return Counter()
        with open_regular(path) as file:
            return Counter(line.rstrip(b"\r\n") for line in file)
    except OSError:  # the service may have locked it
        return Counter()
