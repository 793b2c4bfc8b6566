"""Distributes the list of signing keys to the agents, and reports the progress."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from broker.contract.commands.update_signing_keys import MAX_CLOCK_LEAD, UPDATE_SIGNING_KEYS, UpdateSigningKeys
from broker.contract.messages import Origin, Status
from broker.enrolment.store import EnrolmentStore
from broker.ledger.commands import LedgerRow
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation
from broker.ledger.outcomes import SERVER
from broker.ledger.tables import CommandState
from broker.signing.key_store import SigningKeyStore

__all__ = [
    "KeyDistribution",
    "RolloutProgress",
    "distribute",
    "rollout_of",
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


_TARGET = "agents with an enrolment"


@dataclass(frozen=True)
class RolloutProgress:
    """The agents with a valid enrolment, and the version of our list in each one's last status; 0 if there is none.

    `newest_reported` is the newest plausible version that any of them reports, of our list or of another.
    """

    versions: Mapping[str, int]
    newest_reported: int = 0

    def behind(self, version: int) -> list[str]:
        """Return the agents that have not confirmed this version or a later one, in order."""
        return [agent for agent, known in self.versions.items() if known < version]


def rollout_of(ledger: Ledger, enrolments: EnrolmentStore, newest: int, now: datetime) -> RolloutProgress:
    """Return the progress by the last statuses of the agents; `newest` is the current version of our list.

    A later version belongs to another list and confirms nothing. One so far ahead that agents would refuse it, or the
    version after it, does not count as the newest reported. Raises LedgerError.
    """
    limit = int((now + MAX_CLOCK_LEAD).timestamp() * 1000)
    reported = {row.name: row.status.signing_keys_version or 0 for row in ledger.agents() if row.status is not None}
    known = {name: reported.get(name, 0) for name in enrolments.enrolled_agents()}
    newest_reported = max((version for version in known.values() if version < limit), default=0)
    return RolloutProgress(
        {name: version if version <= newest else 0 for name, version in known.items()}, newest_reported
    )


def distribute(ledger: Ledger, rollout: RolloutProgress, update: UpdateSigningKeys, origin: Origin) -> Operation | None:
    """Send the list to the agents that have not confirmed it, as one operation; return None if there are none.

    Raises LedgerError.
    """
    behind = rollout.behind(update.version)
    if not behind:
        return None
    return ledger.add_operation(
        behind, _TARGET, CommandRequest(UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), origin)
    )
