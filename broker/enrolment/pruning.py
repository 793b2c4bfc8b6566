"""Removes tokens and certificates that ended long ago."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from broker.enrolment.tables import CERTIFICATES, ENROLMENTS, ENROLMENTS_ENDED, TOKENS
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts

__all__ = [
    "LISTED_AFTER_EXPIRY",
    "EnrolmentPruning",
]


LISTED_AFTER_EXPIRY = timedelta(days=8)
"""How long a certificate is kept after its end: revoked, it stays on one more list (RFC 5280 section 3.3)."""


@dataclass(frozen=True)
class EnrolmentPruning:
    """Removes tokens that expired before a time (UTC), and the certificates of enrolments that ended.

    A token that has expired enrolls no agent, used or not. A certificate stays while its enrolment is valid, is still
    listed as revoked, or has a session at the broker. The enrolments themselves stay.
    """

    database: Database
    before: datetime
    now: datetime

    def counts(self) -> Mapping[str, int]:
        """Return how much `run` would remove now, by kind."""
        with self.database.reading() as connection:
            count = sa.select(sa.func.count())
            return {
                "tokens": connection.scalar(count.select_from(TOKENS).where(self._old_tokens)) or 0,
                "certificates": connection.scalar(count.select_from(CERTIFICATES).where(*self._old_certificates)) or 0,
            }

    @retry_conflicts
    def run(self) -> Mapping[str, int]:
        """Remove it; return how much was removed, by kind."""
        with self.database.transaction() as connection:
            return {
                "tokens": connection.execute(TOKENS.delete().where(self._old_tokens)).rowcount,
                "certificates": connection.execute(CERTIFICATES.delete().where(*self._old_certificates)).rowcount,
            }

    @property
    def _old_tokens(self) -> sa.ColumnElement[bool]:
        return TOKENS.c.expires_at < self.before.timestamp()

    @property
    def _old_certificates(self) -> tuple[sa.ColumnElement[bool], ...]:
        expired = min(self.before, self.now - LISTED_AFTER_EXPIRY).timestamp()
        revoked = sa.select(ENROLMENTS.c.id).where(ENROLMENTS.c.revoked_at < self.before.timestamp())
        ended = sa.select(ENROLMENTS_ENDED.c.enrolment_id)
        of_ended = (CERTIFICATES.c.enrolment_id.in_(revoked), CERTIFICATES.c.enrolment_id.in_(ended))
        return (CERTIFICATES.c.not_after < expired, *of_ended)
