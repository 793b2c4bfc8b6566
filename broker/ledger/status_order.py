"""Whether a status is newer than the one that the ledger has: a broker may deliver an old one at any time.

A broker that was put back, a bridge and a restored session deliver statuses from before as if they were new.
"""

from enum import Enum

from broker.contract.messages import Status
from broker.ledger.records import AgentRecord

__all__ = ["Standing", "standing_of"]


class Standing(Enum):
    """`UNPROVEN`: an agent that is alive must be asked, because its store was lost or went back, or this is old."""

    NEW = "new"
    OLD = "old"
    UNPROVEN = "unproven"


def standing_of(record: AgentRecord, known: Status | None, status: Status, *, is_repeat: bool) -> Standing:
    """Compare a status with the agent's row and the status in it, `known`.

    `is_repeat`: the broker may have delivered it before, because it is retained or a duplicate.
    """
    if record.forgotten_at is not None and not status.online:
        return Standing.OLD  # the broker keeps the last status of an agent that is gone
    if known is None or (status.answers is not None and status.answers == record.request):
        return Standing.NEW
    if status.order is None:
        return _standing_without_order(known, status, is_repeat=is_repeat)
    is_same_store = status.store_generation == known.store_generation
    if is_same_store and (known.order is None or status.order > known.order):
        return Standing.NEW
    # A store that was put back counts its starts again, so another process may give its status the same place.
    is_copy = is_same_store and (status.order, status.incarnation) == (known.order, known.incarnation)
    return Standing.OLD if is_copy or not status.online else Standing.UNPROVEN


def _standing_without_order(known: Status, status: Status, *, is_repeat: bool) -> Standing:
    """Compare a status of an earlier version of the agent, which cannot be asked: its clock tells repeats apart."""
    if not is_repeat:
        return Standing.NEW
    if status.updated_at is None:  # its last will, or the status of another implementation
        came_from = (known.store_generation, known.incarnation)
        return Standing.NEW if came_from == (status.store_generation, status.incarnation) else Standing.OLD
    return Standing.NEW if known.updated_at is None or status.updated_at > known.updated_at else Standing.OLD
