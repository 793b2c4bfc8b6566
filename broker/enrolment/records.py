"""Enrolments as they are read from the database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.ledger.tables import moment, utc
from broker.pki.revocation_list import RevocationReason

__all__ = [
    "EnrolmentRecord",
    "enrolments_where",
    "reason_in",
]


@dataclass(frozen=True)
class EnrolmentRecord:
    """One enrolment. `serial` (hexadecimal), `key` (fingerprint) and `not_after` are of its newest certificate."""

    id: str
    agent: str
    enrolled_at: datetime
    serial: str
    key: str
    not_after: datetime
    revoked_at: datetime | None
    reason: RevocationReason | None


def enrolments_where(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[EnrolmentRecord]:
    """Within a transaction, return the enrolments that meet a condition on the table ENROLMENTS, newest first."""
    certificates = ENROLMENTS.join(CERTIFICATES)
    columns = (ENROLMENTS, CERTIFICATES.c.serial, CERTIFICATES.c.key, CERTIFICATES.c.not_after)
    query = sa.select(*columns).select_from(certificates).where(condition)
    oldest_first = query.order_by(ENROLMENTS.c.enrolled_at, CERTIFICATES.c.not_after)
    newest = {row.id: _record(row) for row in connection.execute(oldest_first)}
    return list(reversed(newest.values()))


def reason_in(text: str | None) -> RevocationReason:
    """Return the reason in a column; a damaged one is unspecified."""
    return RevocationReason(text) if text in set(RevocationReason) else RevocationReason.UNSPECIFIED


def _record(row: sa.Row[Any]) -> EnrolmentRecord:
    return EnrolmentRecord(
        id=row.id,
        agent=row.agent,
        enrolled_at=utc(row.enrolled_at),
        serial=row.serial,
        key=row.key,
        not_after=utc(row.not_after),
        revoked_at=moment(row.revoked_at),
        reason=None if row.revoked_at is None else reason_in(row.reason),
    )
