"""Distributes the list of signing keys to the agents, and tells how far it has come."""

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
from broker.ledger.tables import SERVER, CommandState
from broker.signing.key_store import SigningKeyStore

__all__ = [
    "KeyDistribution",
    "RolloutProgress",
    "announce",
    "rollout_of",
]


_log = structlog.get_logger("acm.server")
_AGAIN_AFTER = timedelta(minutes=10)
_ORIGIN = Origin("signing keys", SERVER)


@dataclass
class KeyDistribution:
    """Looks at each status that comes.

    What told an agent may be lost, with its store or a snapshot that was restored, and it may have enrolled while the
    list was changed. It is then told by a command of its own, unless one that tells it is open, or was sent less than
    ten minutes ago: an agent that lies fills no ledger. `directory` is that of the signing keys, if there is one.
    """

    ledger: Ledger
    enrolments: EnrolmentStore
    directory: Path
    now: Callable[[], datetime]

    def __post_init__(self) -> None:
        self._book: SigningKeyStore | None = None
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
                self._book = SigningKeyStore(self.directory) if self.directory.exists() else None
        return self._book.update if self._book is not None else None

    def _is_due(self, agent: str, version: int) -> bool:
        """Say whether to look into the ledger: an agent that is behind says so again and again."""
        looked_for, at = self._looked.get(agent, (0, self.now()))
        return looked_for != version or not timedelta() <= self.now() - at < _AGAIN_AFTER

    def _remind(self, agent: str, update: UpdateSigningKeys) -> None:
        if not self.enrolments.recipients([agent])[agent].enrolments:
            return
        self._looked[agent] = update.version, self.now()
        if any(self._is_enough(row, update.version) for row in self.ledger.commands(agent)):
            return
        told = self.ledger.add_command(agent, CommandRequest(UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), _ORIGIN))
        _log.info("agent_told_of_signing_keys", agent=agent, version=update.version, command_id=told.id)

    def _is_enough(self, row: LedgerRow, version: int) -> bool:
        command = row.command
        if command.type != UPDATE_SIGNING_KEYS or command.parameters.get("version") != version:
            return False
        return row.state is not CommandState.COMPLETED or self.now() - command.created_at < _AGAIN_AFTER


_TARGET = "agents with an enrolment"


@dataclass(frozen=True)
class RolloutProgress:
    """The agents with a good enrolment, and the version of our list that each one's last status names; 0 for none.

    `newest_told` is the newest version that any of them tells, be it of our list or not, and a version could be.
    """

    versions: Mapping[str, int]
    newest_told: int = 0

    def behind(self, version: int) -> list[str]:
        """Return the agents that have not confirmed this version or a later one, in order."""
        return [agent for agent, known in self.versions.items() if known < version]


def rollout_of(ledger: Ledger, enrolments: EnrolmentStore, newest: int, now: datetime) -> RolloutProgress:
    """Look at the statuses of the agents with a good enrolment; `newest` is the version of our list now.

    A later one is of a list that is not ours, and confirms nothing. One that lies so far ahead that no agent would
    take it, or the next one, is nothing to get ahead of. Raises LedgerError.
    """
    furthest = int((now + MAX_CLOCK_LEAD).timestamp() * 1000)
    said = {row.name: row.status.signing_keys_version or 0 for row in ledger.agents() if row.status is not None}
    known = {name: said.get(name, 0) for name in enrolments.good_agents()}
    told = max((version for version in known.values() if version < furthest), default=0)
    return RolloutProgress({name: version if version <= newest else 0 for name, version in known.items()}, told)


def announce(ledger: Ledger, rollout: RolloutProgress, update: UpdateSigningKeys, origin: Origin) -> Operation | None:
    """Tell the agents that have not confirmed it of this list, as one operation; None where there are none.

    Raises LedgerError.
    """
    behind = rollout.behind(update.version)
    if not behind:
        return None
    return ledger.add_operation(
        behind, _TARGET, CommandRequest(UPDATE_SIGNING_KEYS, msgspec.to_builtins(update), origin)
    )
