"""Reads recipients of messages from the enrolments and the last statuses in the ledger."""

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from broker.enrolment.tables import ENROLMENTS
from broker.ledger.damage import decoded
from broker.ledger.tables import AGENTS
from broker.signing.recipient import Recipient

__all__ = [
    "recipients_of",
]


_QUERY_BATCH = 500


class _ReportedStatus(msgspec.Struct):
    accepts_unsigned: bool = False
    enrolment_id: str | None = None


def recipients_of(connection: sa.Connection, agents: Iterable[str]) -> dict[str, Recipient]:
    """Within a transaction, return each of these agents as a recipient, whether it is known here or not."""
    names = list(agents)
    exist = connection.execute(sa.select(ENROLMENTS.c.id).limit(1)).one_or_none() is not None
    enrolled: dict[str, list[str]] = {name: [] for name in names}
    statuses: dict[str, _ReportedStatus] = {}
    for first in range(0, len(names), _QUERY_BATCH):
        batch = names[first : first + _QUERY_BATCH]
        for row in connection.execute(_unrevoked(batch)):
            enrolled[row.agent].append(row.id)
        reported = sa.select(AGENTS.c.name, AGENTS.c.status)
        reported = reported.where(AGENTS.c.name.in_(batch), AGENTS.c.status.is_not(None))
        for name, text in connection.execute(reported):
            if (status := decoded(text, _ReportedStatus)) is not None:
                statuses[name] = status
    return {name: _recipient(ids, statuses.get(name), exist) for name, ids in enrolled.items()}


def _unrevoked(agents: Sequence[str]) -> sa.Select[tuple[str, str]]:
    query = sa.select(ENROLMENTS.c.id, ENROLMENTS.c.agent).where(ENROLMENTS.c.agent.in_(agents))
    return query.where(ENROLMENTS.c.revoked_at.is_(None)).order_by(ENROLMENTS.c.enrolled_at.desc())


def _recipient(enrolments: Sequence[str], status: _ReportedStatus | None, enrolments_exist: bool) -> Recipient:
    if status is None:
        return Recipient(tuple(enrolments), enrolments_exist=enrolments_exist)
    return Recipient(tuple(enrolments), status.accepts_unsigned, status.enrolment_id, enrolments_exist)
