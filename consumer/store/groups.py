"""The groups that the server assigned to the agent."""

import contextlib
from pathlib import Path

import msgspec
import structlog

from broker.system.files import state_of, write_durably
from consumer.errors import StoreError

__all__ = [
    "Groups",
]


_log = structlog.get_logger(__name__)


class Groups:
    """The groups, in a file that several instances on any thread may share."""

    def __init__(self, state: Path) -> None:
        self._path = state / "groups.json"
        self._read_version: tuple[int, int, int] | None = None
        self._groups: tuple[str, ...] | None = None

    @property
    def current(self) -> tuple[str, ...] | None:
        """The groups; None if the agent was never assigned any: then only its server knows them."""
        with contextlib.suppress(OSError):  # what was read before is right until then
            version = state_of(self._path)
            if version != self._read_version:
                self._groups = self._read() if version else None
                self._read_version = version
        return self._groups

    def set(self, groups: tuple[str, ...]) -> None:
        """Store these groups durably; raises StoreError."""
        try:
            write_durably(self._path, msgspec.json.encode(groups))
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}.", code="file_unwritable") from error

    def _read(self) -> tuple[str, ...] | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[str, ...])
        except ValueError as error:
            _log.warning("groups_unreadable", path=str(self._path), reason=str(error))
            return None
