"""Tells agents of the present list of signing keys again whose status shows that they have not got it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.messages import Origin, Status
from broker.enrolments import Enrolments
from broker.ledger import Ledger
from broker.ledger_rows import LedgerRow
from broker.ledger_tables import SERVER, CommandState
from broker.signing_keys import KeyBook

__all__ = ["KeyReminder"]

_log = structlog.get_logger("acm.server")
_AGAIN_AFTER = timedelta(minutes=10)
_ORIGIN = Origin("signing keys", SERVER)


@dataclass
class KeyReminder:
    """Looks at each status that comes.

    What told an agent may be lost, with its store or a snapshot that was restored, and it may have enrolled while the
    list was changed. It is then told by a command of its own, unless one that tells it is open, or was sent less than
    ten minutes ago: an agent that lies fills no ledger. `directory` is that of the signing keys, if there is one.
    """

    ledger: Ledger
    enrolments: Enrolments
    directory: Path
    now: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._book: KeyBook | None = None
        self._looked: dict[str, tuple[int, datetime]] = {}

    def heard(self, status: Status) -> None:
        """Take in a status that its agent itself has sent. Raises LedgerError and SigningKeyError."""
        said = status.signing_keys_version
        if said is None or not status.online or UPDATE_SIGNING_KEYS not in status.supported_types:
            return
        update = self._update()
        if update is not None and said < update.version and self._is_due(status.agent, update.version):
            self._remind(status.agent, update)

    def _update(self) -> UpdateSigningKeys | None:
        if self._book is None:
            with contextlib.suppress(OSError):
                self._book = KeyBook(self.directory) if self.directory.exists() else None
        return self._book.update if self._book is not None else None

    def _is_due(self, agent: str, version: int) -> bool:
        """Say whether to look into the ledger: an agent that is behind says so again and again."""
        looked_for, at = self._looked.get(agent, (0, self.now()))
        return looked_for != version or not timedelta() <= self.now() - at < _AGAIN_AFTER

    def _remind(self, agent: str, update: UpdateSigningKeys) -> None:
        if not self.enrolments.standings([agent])[agent].enrolments:
            return
        self._looked[agent] = update.version, self.now()
        if any(self._is_enough(row, update.version) for row in self.ledger.commands(agent)):
            return
        told = self.ledger.add_command(agent, UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), _ORIGIN)
        _log.info("agent_told_of_signing_keys", agent=agent, version=update.version, command_id=told.id)

    def _is_enough(self, row: LedgerRow, version: int) -> bool:
        command = row.command
        if command.type != UPDATE_SIGNING_KEYS or command.parameters.get("version") != version:
            return False
        return row.state is not CommandState.COMPLETED or self.now() - command.created_at < _AGAIN_AFTER
