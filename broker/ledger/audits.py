"""What the ledger has to say when an agent's audit journal is compared with it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.contract.journal import command_sha256
from broker.contract.messages import Command, JournalMark, SequenceNumber
from broker.contract.states import ErrorCode, Outcome
from broker.ledger.records import AuditRecord, read_one
from broker.ledger.tables import AUDITS, COMMANDS, SERVER, STRAY_RESULTS, CommandState

__all__ = [
    "AuditStore",
    "Known",
    "Verified",
]


_AT_ONCE = 500
_SAID_BY_THE_AGENT = (CommandState.ACCEPTED, CommandState.RUNNING, CommandState.COMPLETED)
_LIGHT = (
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
class Known:
    """One command as the ledger knows it. `sha256` is that of the command as it was sent, where it was asked for."""

    command_id: str
    agent: str
    sequence: SequenceNumber
    state: CommandState
    digest: str | None
    outcome: str | None
    code: ErrorCode | None
    sha256: str | None = None

    @property
    def is_given_up(self) -> bool:
        """Whether the server completed the command itself: its agent had lost its store, or the user gave it up."""
        return self.digest == SERVER


@dataclass(frozen=True)
class Verified:
    """Where a journal ended when it was last good, and when that was. Up to `accepted`, differences are known."""

    head: JournalMark
    at: datetime
    accepted: JournalMark | None


class _Error(msgspec.Struct):
    code: ErrorCode | None = None


class AuditStore:
    """What audits of agents need of the ledger, and what they leave there. Every method is one transaction.

    All raise LedgerError when the database fails.
    """

    def __init__(
        self, transaction: Callable[[], AbstractContextManager[sa.Connection]], now: Callable[[], datetime]
    ) -> None:
        self._transaction = transaction
        self._now = now

    def said(self, agent: str, limit: int) -> list[Known]:
        """Return the newest commands of which the agent has said that it holds, or has held, them; oldest first."""
        query = sa.select(*_LIGHT).where(COMMANDS.c.agent == agent, COMMANDS.c.state.in_(_SAID_BY_THE_AGENT))
        query = query.order_by(COMMANDS.c.epoch.desc(), COMMANDS.c.number.desc()).limit(limit)
        with self._transaction() as connection:
            found = [_known(*columns) for columns in connection.execute(query)]
        return [known for known in reversed(found) if not known.is_given_up]

    def look_up(self, command_ids: Iterable[str]) -> Mapping[str, Known]:
        """Return what the ledger knows of these commands, whosever they are, with their SHA-256."""
        left, found = iter(command_ids), {}
        while some := list(islice(left, _AT_ONCE)):
            query = sa.select(*_LIGHT, COMMANDS.c.body).where(COMMANDS.c.id.in_(some))
            with self._transaction() as connection:
                for *columns, body in connection.execute(query):
                    known = _known(*columns)
                    sha256 = command_sha256(msgspec.json.decode(body, type=Command))
                    found[known.command_id] = replace(known, sha256=sha256)
        return found

    def kept_apart(self, agent: str) -> frozenset[tuple[str, str]]:
        """Return (command id, digest) of the agent's results that answered no open command."""
        query = sa.select(STRAY_RESULTS.c.command_id, STRAY_RESULTS.c.digest).where(STRAY_RESULTS.c.agent == agent)
        with self._transaction() as connection:
            return frozenset((command_id, digest) for command_id, digest in connection.execute(query))

    def verified(self, agent: str) -> Verified | None:
        """Return how far the agent's journal was good before; None if it never was compared."""
        with self._transaction() as connection:
            audit = read_one(connection, AUDITS.select().where(AUDITS.c.agent == agent), AuditRecord)
        if audit is None:
            return None
        accepted = None
        if audit.accepted_number is not None and audit.accepted_hash is not None:
            accepted = JournalMark(audit.accepted_number, audit.accepted_hash)
        return Verified(JournalMark(audit.number, audit.hash), datetime.fromtimestamp(audit.verified_at, UTC), accepted)

    def remember(self, agent: str, head: JournalMark) -> None:
        """Keep that the journal agrees up to here."""
        self._keep(agent, {"number": head.number, "hash": head.hash})

    def accept(self, agent: str, head: JournalMark) -> None:
        """Keep that the user takes the journal as it is up to here."""
        accepted = {"accepted_number": head.number, "accepted_hash": head.hash}
        self._keep(agent, {"number": head.number, "hash": head.hash, **accepted})

    def _keep(self, agent: str, values: dict[str, Any]) -> None:
        values["verified_at"] = self._now().timestamp()
        with self._transaction() as connection:
            if not connection.execute(AUDITS.update().where(AUDITS.c.agent == agent).values(**values)).rowcount:
                connection.execute(AUDITS.insert().values(agent=agent, **values))


def _known(
    command_id: str,
    agent: str,
    epoch: int,
    number: int,
    state: str,
    digest: str | None,
    outcome: str | None,
    error: str | None,
) -> Known:
    code = msgspec.json.decode(error, type=_Error).code if error else None
    return Known(command_id, agent, SequenceNumber(epoch, number), CommandState(state), digest, outcome, code)
