"""Generations of a configuration on disk. Each is complete and durable before it gets its name, and never changes.

current -> generations/000002-9f86d081884c read by the service: one symbolic link, swapped atomically
generations/000002-9f86d081884c/ the files generations/000002-9f86d081884c.json their record
"""

import contextlib
import errno
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from broker.contract.configurations import Generation
from broker.system.files import link_durably, sync_directory, write_durably
from broker.system.trees import sync_tree
from consumer.configuration.found_files import hash_of_file, names_below, open_regular
from consumer.system.leftovers import Leftovers

__all__ = [
    "Generations",
    "Record",
]


_log = structlog.get_logger(__name__)
_NUMBER_DIGITS = 6
_HASH_DIGITS = 12


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a generation.

    `sha256` is the hash of the delivered content; `files` and `sizes` have the hash and the bytes of each file.
    """

    name: str
    sha256: str
    group: str | None
    file: str
    made_at: datetime
    command_id: str
    files: Mapping[str, str]
    sizes: Mapping[str, int] = {}  # not in the records of earlier versions

    def summary(self) -> Generation:
        """Return the generation as shown in results."""
        return Generation(self.name, self.sha256, len(self.files), self.group)


class Generations:
    """The generations below one directory. All methods raise OSError when the disk fails."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._base = root / "generations"
        self.link = root / "current"

    def make_directories(self) -> None:
        """Create missing directories; a root that the operator has created keeps its owner and mode."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self._base.mkdir(mode=0o755)
        handle = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(handle, 0o755)  # of this directory: a link in its place could lead to any
        finally:
            os.close(handle)
        sync_directory(self._root)

    def directory(self, name: str) -> Path:
        """Return the directory of a generation's files."""
        return self._base / name

    @property
    def current(self) -> str | None:
        """The name of the generation that the link `current` leads to, which may be gone; None if it leads to none."""
        target = self.target
        place = None if target is None else Path(os.path.normpath(self._root / target))
        return place.name if place is not None and place.parent == self._normal_base else None

    @property
    def foreign(self) -> str | None:
        """What the link `current` leads to if it was changed by hand; None if the agent has made it, or none."""
        target = self.target
        return target if target is not None and target != self._target_of(self.current or "") else None

    @property
    def target(self) -> str | None:
        """What the link `current` leads to; None if there is no such link."""
        try:
            return os.readlink(self.link)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # not a link
                return None
            raise

    @property
    def is_blocked(self) -> bool:
        """Whether something else than a link is in the place of `current`."""
        return self.link.exists() and not self.link.is_symlink()

    def known(self, name: str | None) -> Record | None:
        """As `record`, but None also if the disk does not give the record."""
        try:
            return self.record(name)
        except OSError as error:
            _log.warning("generation_unreadable", generation=name, reason=str(error))
            return None

    def record(self, name: str | None) -> Record | None:
        """Return the record of a generation, or None if it is incomplete or missing."""
        if name is None or not self.directory(name).is_dir():
            return None
        with contextlib.suppress(FileNotFoundError, ValueError), open_regular(self._record_path(name)) as file:
            return msgspec.json.decode(file.read(), type=Record)
        return None

    def next_name(self, sha256: str) -> str:
        """Return an unused name: its number is one higher than the highest."""
        number = max(map(_number, self._names()), default=0) + 1
        return f"{number:0{_NUMBER_DIGITS}}-{sha256[:_HASH_DIGITS]}"

    def add(self, staged: Path, record: Record) -> None:
        """Turn a staged directory, on the same file system, into a generation: durable, but not active yet."""
        sync_tree(staged)
        self.write_record(record)
        staged.rename(self.directory(record.name))
        sync_directory(self._base)

    def write_record(self, record: Record) -> None:
        """Write the record of a generation durably."""
        write_durably(self._record_path(record.name), msgspec.json.encode(record))

    def activate(self, name: str | None) -> None:
        """Activate a generation atomically; None: no generation is active afterwards."""
        if name is not None:
            link_durably(self.link, self._target_of(name))
        else:
            self.link.unlink(missing_ok=True)
            sync_directory(self._root)

    def restore(self, target: str) -> None:
        """Make the link lead again to something else than a generation."""
        link_durably(self.link, target)

    def prune(self, keep: int, leftovers: Leftovers) -> None:
        """Delete generations that never became active, and all older ones but the last `keep` before the active one."""
        active = self.current
        by_hand = active is None and self.target is not None  # any generation may be wanted again
        earlier = [
            name for name in self._names() if by_hand or (active is not None and _number(name) < _number(active))
        ]
        kept = {active, *earlier[-keep:]}
        for name in self._names():
            if name not in kept and leftovers.remove(self.directory(name)):
                leftovers.remove(self._record_path(name))
        leftovers.remove_all(self._base.glob(".*.part"))  # left by a crash

    def altered(self, record: Record) -> tuple[str, ...]:
        """Return the paths that differ from what was applied: changed, missing, new, or no longer readable."""
        found = names_below(self.directory(record.name))
        kept = {name for name in record.files if found.get(name) and self._is_as_applied(record, name)}
        return tuple(sorted((found.keys() | record.files.keys()) - kept))

    def _is_as_applied(self, record: Record, name: str) -> bool:
        path = self.directory(record.name) / name
        try:  # the size first: a sparse file of any size costs nothing
            return path.lstat().st_size == record.sizes.get(name, path.lstat().st_size) and (
                hash_of_file(path) == record.files[name]
            )
        except OSError:
            return False

    @property
    def _normal_base(self) -> Path:
        return Path(os.path.normpath(self._base))

    def _target_of(self, name: str) -> str:
        return f"{self._base.name}/{name}"

    def _record_path(self, name: str) -> Path:
        return self._base / f"{name}.json"

    def _names(self) -> list[str]:
        """Return the names in use, including those of incomplete generations, sorted by number."""
        with contextlib.suppress(FileNotFoundError):
            found = {entry.name.removesuffix(".json") for entry in self._base.iterdir()}
            return sorted((name for name in found if _number(name)), key=_number)
        return []


def _number(name: str) -> int:
    digits, dash, _ = name.partition("-")
    return int(digits) if dash and digits.isdecimal() else 0
