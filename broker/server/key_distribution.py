"""Sends the list of signing keys to agents that report an older one."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from broker.contract.commands.update_signing_keys import UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.messages import Origin, Status
from broker.enrolment.store import EnrolmentStore
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.outcomes import SERVER
from broker.ledger.tables import CommandState
from broker.signing.key_store import SigningKeyStore

__all__ = [
    "KeyDistribution",
]


_log = structlog.get_logger("acm.server")
_RESEND_AFTER = timedelta(minutes=10)
_ORIGIN = Origin("signing keys", SERVER)


@dataclass
class KeyDistribution:
    """Sends the current list to each agent whose status shows an older version.

    The command that brought the list may be lost, with the agent's store or a restored snapshot, and an agent may have
    enrolled while the list was changed. It gets no further command while one with this version is open, or was created
    less than ten minutes ago: an agent that reports wrong versions must not fill the ledger. `directory` is that of the
    signing keys; it need not exist.
    """

    ledger: Ledger
    enrolments: EnrolmentStore
    directory: Path
    now: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._keys: SigningKeyStore | None = None
        self._checked: dict[str, tuple[int, datetime]] = {}

    def on_status(self, status: Status) -> None:
        """Handle an agent's status. Raises LedgerError and SigningKeyError."""
        reported = status.signing_keys_version
        if reported is None or not status.online or UPDATE_SIGNING_KEYS not in status.supported_types:
            return
        update = self._update()
        if update is not None and reported < update.version and self._is_due(status.agent, update.version):
            self._send(status.agent, update)

    def _update(self) -> UpdateSigningKeys | None:
        if self._keys is None:
            with contextlib.suppress(OSError):
                self._keys = SigningKeyStore(self.directory) if self.directory.exists() else None
        return self._keys.update if self._keys is not None else None

    def _is_due(self, agent: str, version: int) -> bool:
        """Return whether to look into the ledger: an agent that is behind reports it in each status."""
        checked_for, at = self._checked.get(agent, (0, self.now()))
        return checked_for != version or not timedelta() <= self.now() - at < _RESEND_AFTER

    def _send(self, agent: str, update: UpdateSigningKeys) -> None:
        if not self.enrolments.recipients([agent])[agent].enrolments:
            return
        self._checked[agent] = update.version, self.now()
        if any(self._is_open_or_recent(row, update.version) for row in self.ledger.commands(agent)):
            return
        command = self.ledger.add_command(
            agent, CommandRequest(UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), _ORIGIN)
        )
        _log.info("signing_keys_sent", agent=agent, version=update.version, command_id=command.id)

    def _is_open_or_recent(self, row: LedgerRow, version: int) -> bool:
        command = row.command
        if command.type != UPDATE_SIGNING_KEYS or command.parameters.get("version") != version:
            return False
        age = self.now() - command.created_at  # below zero if the clock was set back
        return row.state is not CommandState.COMPLETED or timedelta() <= age < _RESEND_AFTER
