"""What the enrolments of each agent amount to. Imports no cryptography: it is for lists of agents."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.ledger.database import Database
from broker.ledger.tables import moment

__all__ = [
    "EnrolmentState",
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


def enrolment_states(database: Database, now: datetime) -> dict[str, EnrolmentState]:
    """Return the state of each agent that was ever enrolled; raises LedgerError."""
    end = sa.case((ENROLMENTS.c.revoked_at.is_(None), CERTIFICATES.c.not_after))
    query = sa.select(ENROLMENTS.c.agent, sa.func.max(end).label("not_after"))
    query = query.select_from(ENROLMENTS.outerjoin(CERTIFICATES)).group_by(ENROLMENTS.c.agent)
    with database.reading() as connection:
        return {row.agent: EnrolmentState.of(moment(row.not_after), now) for row in connection.execute(query)}
