"""The journal of the latest configuration update, from which it is resumed after a crash."""

import contextlib
from pathlib import Path

import msgspec

from broker.contract.configurations import DiffSize
from broker.contract.states import ErrorCode
from broker.system.files import set_damaged_aside, write_durably
from consumer.configuration.found_files import NotRegular, open_regular
from consumer.errors import CentralizedConfigurationError

__all__ = [
    "ApplyJournal",
    "JournalFile",
]


class ApplyJournal(msgspec.Struct, frozen=True, kw_only=True):
    """A command's update from generation `previous` to `next`.

    `incarnation` is the service's with `previous`, None if it did not run. `reason` and `code` say why `next` is rolled
    back; `note` is further information for the user. `done`: the update has ended. `foreign` is where the link led
    before, if somebody had made it lead to something else than a generation.
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
    foreign: str | None = None


class JournalFile:
    """The file of the journal; each write replaces the previous one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, journal: ApplyJournal) -> None:
        """Make the journal durable; raises OSError."""
        write_durably(self._path, msgspec.json.encode(journal))

    def read(self, command_id: str) -> ApplyJournal | None:
        """Return this command's journal, or None.

        Raises CentralizedConfigurationError if the file cannot be read; one that is damaged is set aside.
        """
        journal = self._last()
        return journal if journal is not None and journal.command_id == command_id else None

    def unchecked(self, generation: str) -> ApplyJournal | None:
        """Return the journal of an update to this generation that became active and was never seen to work, or None."""
        with contextlib.suppress(CentralizedConfigurationError):  # it only steers the recovery
            journal = self._last()
            if journal is not None and journal.next == generation and not journal.done and journal.reason is None:
                return journal
        return None

    def _last(self) -> ApplyJournal | None:
        try:
            with open_regular(self._path) as file:
                return msgspec.json.decode(file.read(), type=ApplyJournal)
        except FileNotFoundError:
            return None
        except (NotRegular, ValueError) as error:
            place = self._path
            with contextlib.suppress(OSError):
                place = set_damaged_aside(self._path)
            raise CentralizedConfigurationError(
                f"The journal of the last configuration was damaged, and is now at {place}: {error}.",
                code="journal_damaged",
            ) from error
        except OSError as error:
            raise CentralizedConfigurationError(
                f"The journal {self._path} cannot be read: {error}.", code="journal_unreadable"
            ) from error
