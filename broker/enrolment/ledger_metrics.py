"""The metrics of the database that the server's programs share: the ledger's, and those of agents' certificates."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import sqlalchemy as sa

from broker.enrolment.tables import CERTIFICATES, ENROLMENTS
from broker.errors import LedgerError
from broker.ledger.database import Database
from broker.ledger.gauges import ledger_gauges
from broker.metrics.kept import kept
from broker.metrics.values import Family, Kind, Metric, Source, gauge

__all__ = [
    "of_ledger",
]


_SOON = timedelta(days=7)
AVAILABLE = Metric("acm_ledger_available", Kind.GAUGE, "1 if the ledger could be read for these metrics, else 0.")
CERTIFICATES_BY_END = Metric(
    "acm_agent_certificates",
    Kind.GAUGE,
    "Newest certificates of agents whose enrolment is valid: expired, ending within a week, or later.",
    ("ends",),
)
_NEWEST = (
    sa.select(sa.func.max(CERTIFICATES.c.not_after).label("end"))
    .select_from(CERTIFICATES.join(ENROLMENTS))
    .where(ENROLMENTS.c.revoked_at.is_(None))
    .group_by(ENROLMENTS.c.agent)
    .subquery()
)


def of_ledger(database: Database, now: Callable[[], datetime], monotonic: Callable[[], float]) -> Source:
    """Return the source of what is in the database; read every five seconds at most, and for 5 % of the time."""

    def families() -> Iterable[Family]:
        try:
            return [*ledger_gauges(database, now()), *_certificates(database, now()), gauge(AVAILABLE, 1)]
        except LedgerError:  # the programs log it; the metrics of what they do must still be there
            return [gauge(AVAILABLE, 0)]

    return kept(families, monotonic)


def _certificates(database: Database, now: datetime) -> Iterator[Family]:
    end, time, week_on = _NEWEST.c.end, now.timestamp(), (now + _SOON).timestamp()
    conditions = {"expired": end <= time, "week": sa.and_(end > time, end <= week_on), "later": end > week_on}
    counts = [sa.func.count().filter(condition) for condition in conditions.values()]
    with database.reading() as connection:
        row = connection.execute(sa.select(*counts).select_from(_NEWEST)).one()
    yield gauge(CERTIFICATES_BY_END, {(name,): count for name, count in zip(conditions, row, strict=True)})
