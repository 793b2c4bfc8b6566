"""Times in queries."""

from datetime import UTC, datetime

__all__ = [
    "utc_or_none",
]


def utc_or_none(moment: datetime | None) -> datetime | None:
    """Return a time of a query in UTC; one without a zone is in UTC."""
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
