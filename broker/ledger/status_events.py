"""What a status of an agent changes of what is known of it, as events; counters that have moved are none."""

from broker.contract.messages import Status
from broker.ledger.event_types import EventType
from broker.ledger.records import AgentRecord

__all__ = [
    "changes_of",
    "presence_after",
]


_WATCHED = ("version", "supported_types", "accepts_unsigned", "signing_keys_version", "enrolment_id", "groups")


def presence_after(row: AgentRecord, status: Status) -> EventType | None:
    """Return what a status says of whether the agent of this row, as it was before, is there; None for nothing new."""
    if not status.online:
        return EventType.AGENT_OFFLINE if row.online else None
    if not row.online or row.silent_at is not None:
        return EventType.AGENT_ONLINE
    return EventType.AGENT_RESTARTED if row.incarnation != status.incarnation else None


def changes_of(before: Status | None, status: Status) -> str | None:
    """Return the watched members of a status that differ from those before, with commas; None if none does.

    A last will changes nothing: it may have been made long before.
    """
    if before is None or not status.online:
        return None
    return ",".join(name for name in _WATCHED if getattr(before, name) != getattr(status, name)) or None
