"""The file `status.json` of a state directory: what only the running process of the agent knows, for who looks at it.

The process replaces the file when something changes, and reads it never. Nothing in it is secret: what it has is also
in the log, or in the status that the agent publishes.
"""

from datetime import datetime
from pathlib import Path

import msgspec

from broker.contract.messages import RunningProgress
from broker.system.files import write_for_readers
from broker.system.lock import is_locked
from consumer.errors import StoreError

__all__ = [
    "RECORD_IS_OLD_S",
    "Incident",
    "ProcessRecord",
    "live_record",
    "process_id",
    "process_is_running",
    "read_process_record",
    "write_process_record",
]


RECORD_IS_OLD_S = 400.0
"""The process writes its record every five minutes at least; later than this, it hangs or cannot write."""

_NAME = "status.json"
_LOCK = "lock"


class Incident(msgspec.Struct, frozen=True):
    """Something that is or was wrong, in one sentence; `until` is None as long as it is. Times are in UTC."""

    text: str
    since: datetime
    until: datetime | None = None


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the agent knows of itself at `written_at`. Times are in UTC.

    `connection` states in one sentence that it is connected to `broker`, or why not, which is so since
    `connection_since`. `running_command` is an id, and `running_progress` how far that command is. `clock_behind_s` is
    by how many seconds the machine's clock is behind the server's, if it is. `ended_at` is set by a process that has
    ended in order, `end` if it did so for an error: why.
    """

    pid: int
    version: str
    incarnation: str
    started_at: datetime
    written_at: datetime
    broker: str
    connected: bool
    connection: str
    connection_since: datetime
    running_command: str | None = None
    running_progress: RunningProgress | None = None
    clock_behind_s: int | None = None
    incidents: tuple[Incident, ...] = ()
    ended_at: datetime | None = None
    end: str | None = None


def write_process_record(state: Path, record: ProcessRecord) -> None:
    """Replace the record in the state directory; raises OSError."""
    write_for_readers(state / _NAME, msgspec.json.format(msgspec.json.encode(record)))


def read_process_record(state: Path) -> ProcessRecord | None:
    """Return the record of the last process that has written one, None without one; raises StoreError."""
    path = state / _NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"{path} cannot be read: {reason}. The agent writes it again at its next change.",
            code="process_record_unreadable",
        ) from error


def process_is_running(state: Path) -> bool:
    """Return whether a process has the agent's lock on the state directory; raises StoreError."""
    try:
        return is_locked(state / _LOCK)
    except OSError as error:
        raise StoreError(
            f"Whether an agent runs is not known: {state / _LOCK}: {error.strerror}.", code="lock_unreadable"
        ) from error


def process_id(state: Path) -> int | None:
    """Return the id of the process that last had the agent's lock, None if it is not recorded."""
    try:
        return int((state / _LOCK).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def live_record(state: Path) -> ProcessRecord | None:
    """Return the record of the process that runs now, None if none runs, or it has written none; raises StoreError."""
    if not process_is_running(state):
        return None
    record = read_process_record(state)
    return record if record is not None and record.pid == process_id(state) else None
