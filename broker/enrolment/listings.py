"""Lists of enrolments and tokens that are searched, filtered and sorted by the database, however many there are."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from broker.enrolment.enrolment_states import EnrolmentState
from broker.enrolment.records import EnrolmentRecord, enrolments_where
from broker.enrolment.tables import CERTIFICATES, ENROLMENTS, TOKENS
from broker.enrolment.tokens import TokenRecord, TokenState, token_in_row
from broker.ledger.agents import is_of_groups
from broker.ledger.database import Database

__all__ = [
    "EnrolmentListing",
    "EnrolmentOrder",
    "TokenListing",
    "listed_enrolments",
    "listed_tokens",
]


_HAS_CERTIFICATE = sa.exists().where(CERTIFICATES.c.enrolment_id == ENROLMENTS.c.id)


class EnrolmentOrder(StrEnum):
    """What enrolments are sorted by; those that are equal in it, the newest first."""

    ENROLLED = "enrolled"
    AGENT = "agent"
    END = "end"
    REVOKED = "revoked"


@dataclass(frozen=True)
class EnrolmentListing:
    """Which enrolments to list: those whose agents have a text in their names, in a state."""

    text: str = ""
    state: EnrolmentState | None = None
    order: EnrolmentOrder = EnrolmentOrder.ENROLLED
    descending: bool = True


@dataclass(frozen=True)
class TokenListing:
    """Which tokens to list, newest first: those for agents with a text in their names, in a state."""

    text: str = ""
    state: TokenState | None = None


def listed_enrolments(
    database: Database, which: EnrolmentListing, groups: frozenset[str] | None, now: datetime, *, skip: int, limit: int
) -> tuple[list[EnrolmentRecord], int]:
    """Return at most `limit` of these enrolments, after the first `skip`, and how many there are. Raises LedgerError.

    With `groups`, only those of agents in one of them.
    """
    end = sa.select(sa.func.max(CERTIFICATES.c.not_after)).where(CERTIFICATES.c.enrolment_id == ENROLMENTS.c.id)
    conditions = [_HAS_CERTIFICATE, *_conditions(ENROLMENTS.c.agent, which.text, groups)]
    if which.state is not None:
        conditions.append(_is_in(which.state, end.scalar_subquery(), now))
    count = sa.select(sa.func.count()).select_from(ENROLMENTS).where(*conditions)
    key = _key(which.order, end.scalar_subquery())
    order = (key.desc() if which.descending else key).nulls_last()
    query = sa.select(ENROLMENTS.c.id).where(*conditions).order_by(order, ENROLMENTS.c.id.desc())
    with database.reading() as connection:
        ids = connection.scalars(query.limit(limit).offset(skip)).all()
        found = {it.id: it for it in enrolments_where(connection, ENROLMENTS.c.id.in_(ids))}
        return [found[it] for it in ids if it in found], connection.scalar(count) or 0


def listed_tokens(
    database: Database, which: TokenListing, groups: frozenset[str] | None, now: datetime, *, skip: int, limit: int
) -> tuple[list[TokenRecord], int]:
    """Return at most `limit` of these tokens, after the first `skip`, and how many there are. Raises LedgerError.

    With `groups`, only those for agents in one of them.
    """
    conditions = _conditions(TOKENS.c.agent, which.text, groups)
    if which.state is not None:
        conditions.append(_state_of_token(now) == which.state)
    count = sa.select(sa.func.count()).select_from(TOKENS).where(*conditions)
    query = TOKENS.select().where(*conditions).order_by(TOKENS.c.id.desc()).limit(limit).offset(skip)
    with database.reading() as connection:
        rows = connection.execute(query).all()
        return [token_in_row(row, now) for row in rows], connection.scalar(count) or 0


def _conditions(agent: sa.Column[str], text: str, groups: frozenset[str] | None) -> list[sa.ColumnElement[bool]]:
    named = [agent.contains(text.lower(), autoescape=True)] if text else []
    return named if groups is None else [*named, is_of_groups(agent, groups)]


def _is_in(state: EnrolmentState, end: sa.ScalarSelect[float], now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition that says of rows what `EnrolmentState.of` says of records."""
    is_revoked = ENROLMENTS.c.revoked_at.is_not(None)
    if state is EnrolmentState.REVOKED:
        return is_revoked
    is_valid = end > now.timestamp()
    return sa.and_(~is_revoked, is_valid if state is EnrolmentState.VALID else ~is_valid)


def _key(order: EnrolmentOrder, end: sa.ScalarSelect[float]) -> sa.ColumnElement[Any] | sa.ScalarSelect[Any]:
    if order is EnrolmentOrder.AGENT:
        return ENROLMENTS.c.agent
    if order is EnrolmentOrder.END:
        return end
    return ENROLMENTS.c.revoked_at if order is EnrolmentOrder.REVOKED else ENROLMENTS.c.enrolled_at


def _state_of_token(now: datetime) -> sa.ColumnElement[str]:
    return sa.case(
        (TOKENS.c.used_at.is_not(None), TokenState.USED),
        (TOKENS.c.revoked_at.is_not(None), TokenState.REVOKED),
        (TOKENS.c.expires_at <= now.timestamp(), TokenState.EXPIRED),
        else_=TokenState.OPEN,
    )
