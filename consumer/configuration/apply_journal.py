"""What is known of the latest application of a configuration, kept so that a crash in its midst can be settled."""

from pathlib import Path

import msgspec

from broker.contract.configurations import DiffSize
from broker.contract.states import ErrorCode
from broker.system.files import write_durably
from consumer.errors import CentralizedConfigurationError

__all__ = [
    "ApplyJournal",
    "JournalFile",
]


class ApplyJournal(msgspec.Struct, frozen=True, kw_only=True):
    """What one command does to which generations.

    `incarnation` is the service's with `previous`, and None for one that did not run. `reason` says why `next` is
    rolled back, with which `code`; `note` what else the user must know. `done`: this is how it ended.
    """

    command_id: str
    previous: str | None
    next: str
    incarnation: str | None
    diff: DiffSize
    reason: str | None = None
    code: ErrorCode | None = None
    note: str = ""
    done: bool = False


class JournalFile:
    """Keeps one journal; each replaces the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, journal: ApplyJournal) -> None:
        """Make the journal durable; raises OSError."""
        write_durably(self._path, msgspec.json.encode(journal))

    def read(self, command_id: str) -> ApplyJournal | None:
        """Return this command's journal, if it began one; raises CentralizedConfigurationError for a damaged one."""
        try:
            journal = msgspec.json.decode(self._path.read_bytes(), type=ApplyJournal)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise CentralizedConfigurationError(f"The journal {self._path} cannot be read: {error}.") from error
        return journal if journal.command_id == command_id else None
