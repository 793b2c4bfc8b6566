"""Enrolments as they are read from the database."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.ledger.agents import is_of_groups
from broker.ledger.pages import newest_by_id
from broker.ledger.tables import moment, utc
from broker.pki.revocation_list import RevocationReason

__all__ = [
    "EnrolmentRecord",
    "enrolments_where",
    "find_enrolment",
    "page_of_enrolments",
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


def page_of_enrolments(
    connection: sa.Connection, cursor: str | None, limit: int, agent: str | None, groups: frozenset[str] | None
) -> tuple[list[EnrolmentRecord], str | None]:
    """Within a transaction, return at most `limit` enrolments, newest first, and the cursor for more; None at the end.

    Only those of `agent`, and of agents in one of `groups`, if these are not None. Raises InvalidArgument for a cursor
    of another list.
    """
    query = sa.select(ENROLMENTS.c.id).where(_is_of_one_of(groups))
    query = query if agent is None else query.where(ENROLMENTS.c.agent == agent)
    rows, end = newest_by_id(connection, query, ENROLMENTS.c.id, cursor, limit)
    found = enrolments_where(connection, ENROLMENTS.c.id.in_([row.id for row in rows]))
    return sorted(found, key=lambda it: it.id, reverse=True), end


def find_enrolment(
    connection: sa.Connection, enrolment_id: str, groups: frozenset[str] | None
) -> EnrolmentRecord | None:
    """Within a transaction, return one enrolment, or None; with `groups`, only if its agent is in one of them."""
    return next(
        iter(enrolments_where(connection, sa.and_(ENROLMENTS.c.id == enrolment_id, _is_of_one_of(groups)))), None
    )


def _is_of_one_of(groups: frozenset[str] | None) -> sa.ColumnElement[bool]:
    return sa.true() if groups is None else is_of_groups(ENROLMENTS.c.agent, groups)


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
