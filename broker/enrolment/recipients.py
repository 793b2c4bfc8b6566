"""Reads recipients of messages from the enrolments and the last statuses in the ledger."""

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from broker.enrolment.tables import ENROLMENTS
from broker.ledger.damage import decoded
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.tables import AGENTS
from broker.signing.recipient import Recipient

__all__ = [
    "recipients_of",
]


_ANY = sa.select(ENROLMENTS.c.id).limit(1)
_UNREVOKED = (
    sa.select(ENROLMENTS.c.agent, ENROLMENTS.c.id)
    .where(ENROLMENTS.c.agent.in_(given_keys()), ENROLMENTS.c.revoked_at.is_(None))
    .order_by(ENROLMENTS.c.enrolled_at.desc())
)
_STATUSES = sa.select(AGENTS.c.name, AGENTS.c.status).where(
    AGENTS.c.name.in_(given_keys()), AGENTS.c.status.is_not(None)
)


class _ReportedStatus(msgspec.Struct):
    accepts_unsigned: bool = False
    enrolment_id: str | None = None


def recipients_of(connection: sa.Connection, agents: Iterable[str]) -> dict[str, Recipient]:
    """Within a transaction, return each of these agents as a recipient, whether it is known here or not."""
    exist = connection.execute(_ANY).one_or_none() is not None
    enrolled: dict[str, list[str]] = {name: [] for name in agents}
    given = as_keys(enrolled)
    for agent, enrolment_id in connection.execute(_UNREVOKED, given) if exist else ():
        enrolled[agent].append(enrolment_id)
    reported = {name: decoded(text, _ReportedStatus) for name, text in connection.execute(_STATUSES, given)}
    return {name: _recipient(ids, reported.get(name), exist) for name, ids in enrolled.items()}


def _recipient(enrolments: Sequence[str], status: _ReportedStatus | None, enrolments_exist: bool) -> Recipient:
    if status is None:
        return Recipient(tuple(enrolments), enrolments_exist=enrolments_exist)
    return Recipient(tuple(enrolments), status.accepts_unsigned, status.enrolment_id, enrolments_exist)
