"""Moments as users write them: a time, or how long ago it was."""

from datetime import UTC, datetime, timedelta

from broker.durations import has_duration_form, parse_duration
from broker.errors import InvalidArgument

__all__ = [
    "parse_moment",
]


def parse_moment(text: str) -> datetime:
    """Return a time of RFC 3339 (`2026-11-29`, `2026-11-29T08:05Z`), in UTC without an offset, or a duration ago.

    Raises InvalidArgument.
    """
    if has_duration_form(text):
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{text[:80]!r} is not a time; write 2026-11-29, 2026-11-29T08:05 (UTC), or how long ago, as in 2h.",
            code="not_a_time",
        ) from None
