"""`rotate-logs`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from broker import CommandType

__all__ = ["COMMAND_TYPE", "RotateLogs", "RotateLogsData"]


@dataclass(frozen=True)
class RotateLogs:
    """Rename the file at `path`, create a new one, and keep the newest `keep` renamed files."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    keep: Annotated[int, Meta(ge=1, le=100)] = 7


@dataclass(frozen=True)
class RotateLogsData:
    """The renamed file and its size in bytes (absent when nothing was rotated), and the older files removed."""

    rotated: str | None
    size_bytes: int | None
    removed: tuple[str, ...]


COMMAND_TYPE = CommandType(RotateLogs, RotateLogsData)
