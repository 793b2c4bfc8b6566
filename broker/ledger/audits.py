"""The ledger's data for audits of agents: what their journals are compared with, and how far they were verified."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.contract.journal import command_sha256
from broker.contract.messages import Command, JournalMark, SequenceNumber
from broker.contract.states import ErrorCode, Outcome
from broker.ledger.also import Also, nothing_else
from broker.ledger.damage import decoded, state_in
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import replace_row
from broker.ledger.outcomes import SERVER
from broker.ledger.records import AuditRecord, read_one
from broker.ledger.tables import AUDITS, COMMANDS, PRUNED_COMMANDS, STRAY_RESULTS, CommandState, utc

__all__ = [
    "AuditStore",
    "KnownCommand",
    "Verified",
]


_IDS_PER_QUERY = 500
_REPORTED_STATES = (CommandState.ACCEPTED, CommandState.RUNNING, CommandState.COMPLETED)
_COLUMNS = (
    COMMANDS.c.id,
    COMMANDS.c.agent,
    COMMANDS.c.epoch,
    COMMANDS.c.number,
    COMMANDS.c.state,
    COMMANDS.c.digest,
    COMMANDS.c.outcome,
    sa.case((COMMANDS.c.outcome == Outcome.ERROR, COMMANDS.c.result)).label("error"),
)


@dataclass(frozen=True)
class KnownCommand:
    """One command as the ledger knows it. `sha256` is of the command as it was sent; None unless requested."""

    command_id: str
    agent: str
    sequence: SequenceNumber
    state: CommandState
    digest: str | None
    outcome: str | None
    code: ErrorCode | None
    sha256: str | None = None

    @property
    def is_completed_by_server(self) -> bool:
        """Whether the server completed the command: its agent had lost its store, or the user abandoned it."""
        return self.digest == SERVER


@dataclass(frozen=True)
class Verified:
    """Where a journal ended when it was last verified, and when. The user accepted all differences up to `accepted`."""

    head: JournalMark
    at: datetime
    accepted: JournalMark | None


class _Error(msgspec.Struct):
    code: ErrorCode | None = None


class AuditStore:
    """The ledger's data for audits of agents. Every method is one transaction, and raises LedgerError if that fails."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._transaction = database.transaction
        self._reading = database.reading
        self._now = now

    def accepted_commands(self, agent: str, limit: int) -> list[KnownCommand]:
        """Return the newest commands that the agent has reported as accepted or in a later state; oldest first."""
        query = sa.select(*_COLUMNS).where(COMMANDS.c.agent == agent, COMMANDS.c.state.in_(_REPORTED_STATES))
        query = query.order_by(COMMANDS.c.epoch.desc(), COMMANDS.c.number.desc()).limit(limit)
        pruned = PRUNED_COMMANDS.select().where(PRUNED_COMMANDS.c.agent == agent)
        pruned = pruned.order_by(PRUNED_COMMANDS.c.epoch.desc(), PRUNED_COMMANDS.c.number.desc()).limit(limit)
        with self._reading() as connection:
            found = [_known(*columns) for columns in connection.execute(query)]
            found += [_known_pruned(row) for row in connection.execute(pruned)]
        found.sort(key=lambda known: (known.sequence.epoch, known.sequence.number))
        return [known for known in found[-limit:] if not known.is_completed_by_server]

    def look_up(self, command_ids: Iterable[str]) -> Mapping[str, KnownCommand]:
        """Return the commands with these ids, of any agent, with their SHA-256."""
        remaining = iter(command_ids)
        found: dict[str, KnownCommand] = {}
        while ids := list(islice(remaining, _IDS_PER_QUERY)):
            query = sa.select(*_COLUMNS, COMMANDS.c.body).where(COMMANDS.c.id.in_(ids))
            pruned = PRUNED_COMMANDS.select().where(PRUNED_COMMANDS.c.id.in_(ids))
            with self._reading() as connection:
                found |= {row.id: _known_pruned(row) for row in connection.execute(pruned)}
                for *columns, body in connection.execute(query):
                    known = _known(*columns)
                    command = decoded(body, Command)
                    found[known.command_id] = replace(known, sha256=command_sha256(command) if command else None)
        return found

    def unmatched_results(self, agent: str) -> frozenset[tuple[str, str]]:
        """Return (command id, digest) of the agent's results that matched no open command."""
        query = sa.select(STRAY_RESULTS.c.command_id, STRAY_RESULTS.c.digest).where(STRAY_RESULTS.c.agent == agent)
        with self._reading() as connection:
            return frozenset((command_id, digest) for command_id, digest in connection.execute(query))

    def verified(self, agent: str) -> Verified | None:
        """Return how far the agent's journal was verified, or None if it never was."""
        with self._reading() as connection:
            audit = read_one(connection, AUDITS.select().where(AUDITS.c.agent == agent), AuditRecord)
        if audit is None:
            return None
        accepted = None
        if audit.accepted_number is not None and audit.accepted_hash is not None:
            accepted = JournalMark(audit.accepted_number, audit.accepted_hash)
        return Verified(JournalMark(audit.number, audit.hash), utc(audit.verified_at), accepted)

    def mark_verified(self, agent: str, head: JournalMark, also: Also[str] = nothing_else) -> None:
        """Store that the journal agrees with the ledger up to this mark. `also` gets the agent, in this transaction."""
        self._save(agent, {"number": head.number, "hash": head.hash}, also)

    def accept(self, agent: str, head: JournalMark, also: Also[str] = nothing_else) -> None:
        """Store that the user accepts the journal as it is up to this mark. `also` is as above."""
        accepted = {"accepted_number": head.number, "accepted_hash": head.hash}
        self._save(agent, {"number": head.number, "hash": head.hash, **accepted}, also)

    def drop_pages(self, command_ids: Iterable[str]) -> None:
        """Remove the journal from the results of these commands: it was compared, and has up to 4 MiB."""
        for command_id in command_ids:
            self._drop_page(command_id)

    @retry_conflicts
    def _drop_page(self, command_id: str) -> None:
        is_command = COMMANDS.c.id == command_id
        with self._transaction() as connection:
            stored = connection.scalar(sa.select(COMMANDS.c.result).where(is_command))
            if stored is not None:
                kept = msgspec.json.encode({**(decoded(stored, dict) or {}), "data": None}).decode()
                connection.execute(COMMANDS.update().where(is_command).values(result=kept))

    @retry_conflicts
    def _save(self, agent: str, values: dict[str, Any], also: Also[str]) -> None:
        values["verified_at"] = self._now().timestamp()
        with self._transaction() as connection:
            replace_row(connection, AUDITS, {"agent": agent, **values})
            also(connection, agent)


def _known_pruned(row: sa.Row[Any]) -> KnownCommand:
    sequence = SequenceNumber(row.epoch, row.number)
    code = None if row.code is None else ErrorCode(row.code)
    return KnownCommand(
        row.id, row.agent, sequence, CommandState.COMPLETED, row.digest, row.outcome, code, sha256=row.sha256
    )


def _known(
    command_id: str,
    agent: str,
    epoch: int,
    number: int,
    state: str,
    digest: str | None,
    outcome: str | None,
    error: str | None,
) -> KnownCommand:
    result = decoded(error, _Error)
    code = result.code if result else None
    return KnownCommand(command_id, agent, SequenceNumber(epoch, number), state_in(state), digest, outcome, code)
