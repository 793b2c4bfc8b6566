"""What the enrolments of each agent amount to. Imports no cryptography: it is for lists of agents."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.ledger.agents import is_of_groups
from broker.ledger.database import Database
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.tables import AGENTS, moment, utc

__all__ = [
    "EnrolmentEnd",
    "EnrolmentState",
    "certificate_ends",
    "certificates_ending",
    "enrolment_end",
    "enrolment_states",
]


class EnrolmentState(StrEnum):
    """The state of an agent's enrolments, or of one of them."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"

    @classmethod
    def of(cls, not_after: datetime | None, now: datetime) -> "EnrolmentState":
        """Return the state of an enrolment by its last certificate; None if it was revoked."""
        if not_after is None:
            return cls.REVOKED
        return cls.VALID if now < not_after else cls.EXPIRED


@dataclass(frozen=True)
class EnrolmentEnd:
    """The state of an agent's enrolments, and when they end or ended (UTC): by their certificates, or revoked."""

    state: EnrolmentState
    at: datetime | None


def enrolment_end(database: Database, agent: str, now: datetime) -> EnrolmentEnd | None:
    """Return it for one agent; None if it was never enrolled. Raises LedgerError."""
    valid_until = sa.func.max(sa.case((ENROLMENTS.c.revoked_at.is_(None), CERTIFICATES.c.not_after)))
    query = sa.select(sa.func.count(), valid_until, sa.func.max(ENROLMENTS.c.revoked_at))
    query = query.select_from(ENROLMENTS.outerjoin(CERTIFICATES)).where(ENROLMENTS.c.agent == agent)
    with database.reading() as connection:
        count, not_after, revoked_at = connection.execute(query).one()
    if not count:
        return None
    state = EnrolmentState.of(moment(not_after), now)
    return EnrolmentEnd(state, moment(revoked_at if state is EnrolmentState.REVOKED else not_after))


def enrolment_states(
    database: Database, now: datetime, agents: Iterable[str] | None = None
) -> dict[str, EnrolmentState]:
    """Return the state of each agent, or of each of these, that was ever enrolled; raises LedgerError."""
    return {agent: EnrolmentState.of(end, now) for agent, end in certificate_ends(database, agents).items()}


def certificate_ends(database: Database, agents: Iterable[str] | None = None) -> dict[str, datetime | None]:
    """Return the end of the certificate of each agent, or of each of these, that was ever enrolled.

    It is None if all its enrolments were revoked. Raises LedgerError.
    """
    end = sa.case((ENROLMENTS.c.revoked_at.is_(None), CERTIFICATES.c.not_after))
    query = sa.select(ENROLMENTS.c.agent, sa.func.max(end).label("not_after"))
    query = query.select_from(ENROLMENTS.outerjoin(CERTIFICATES)).group_by(ENROLMENTS.c.agent)
    if agents is not None:
        query = query.where(ENROLMENTS.c.agent.in_(given_keys()))
    with database.reading() as connection:
        rows = connection.execute(query, None if agents is None else as_keys(agents))
        return {row.agent: moment(row.not_after) for row in rows}


def certificates_ending(
    database: Database, before: datetime, groups: frozenset[str] | None, limit: int
) -> list[tuple[str, datetime]]:
    """Return agents whose certificates end, or have ended, before a time, and when; the first ones first.

    Only agents that are listed; with `groups`, those in one of them. Raises LedgerError.
    """
    end = sa.func.max(CERTIFICATES.c.not_after)
    query = sa.select(ENROLMENTS.c.agent, end.label("not_after"))
    query = query.select_from(ENROLMENTS.join(CERTIFICATES).join(AGENTS, AGENTS.c.name == ENROLMENTS.c.agent))
    query = query.where(ENROLMENTS.c.revoked_at.is_(None), AGENTS.c.forgotten_at.is_(None))
    query = query if groups is None else query.where(is_of_groups(ENROLMENTS.c.agent, groups))
    query = query.group_by(ENROLMENTS.c.agent).having(end < before.timestamp()).order_by(end).limit(limit)
    with database.reading() as connection:
        return [(row.agent, utc(row.not_after)) for row in connection.execute(query)]
