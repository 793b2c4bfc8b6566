"""The MQTT sessions that revocations must end, in the database of the ledger."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from broker.enrolment.records import EnrolmentRecord, enrolments_where
from broker.enrolment.tables import ENROLMENTS, ENROLMENTS_ENDED
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import replace_row

__all__ = [
    "RevokedSessions",
]


class RevokedSessions:
    """The sessions of revoked enrolments. Every method is one transaction; all raise LedgerError."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._transaction, self._reading = database.transaction, database.reading
        self._now = now

    def to_end(self) -> list[EnrolmentRecord]:
        """Return the revoked enrolments without a recorded end of the agent's session, newest first."""
        ended = sa.select(ENROLMENTS_ENDED.c.enrolment_id)
        with self._reading() as connection:
            return enrolments_where(
                connection, sa.and_(ENROLMENTS.c.revoked_at.is_not(None), ENROLMENTS.c.id.not_in(ended))
            )

    @retry_conflicts
    def record_end(self, enrolment_id: str) -> None:
        """Record that no session of the agent with this revoked enrolment is left."""
        values = {"enrolment_id": enrolment_id, "ended_at": self._now().timestamp()}
        with self._transaction() as connection:
            replace_row(connection, ENROLMENTS_ENDED, values)
