"""What an agent's status changes in the ledger: its row, its groups, and what is due for it."""

from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.messages import Status
from broker.ledger.agents import get_or_create, status_in, update_agent
from broker.ledger.groups import set_groups
from broker.ledger.outbox import requeue
from broker.ledger.sequence import detect_lost_store, detect_restored_ledger

__all__ = [
    "take_in_status",
]


def take_in_status(connection: sa.Connection, status: Status, now: datetime) -> None:
    """Within a transaction, keep an agent's status and act on what it shows.

    A new incarnation, or one that is back, makes what it did not accept due at once. Groups that the agent says it is
    in, other than those it said before, replace the ledger's.
    """
    before = get_or_create(connection, status.agent, now)
    if not status.online:  # a last will was written when the process began, and may tell what is old
        status = _without_old_news(status, status_in(before.status))
    detect_lost_store(connection, status, now)
    detect_restored_ledger(connection, status, now)
    if status.groups is not None and status.groups != _groups_in(before.status):
        set_groups(connection, status.agent, status.groups)
    returned = status.online and not (before.online and before.incarnation == status.incarnation)
    if returned:
        requeue(connection, status.agent)
    update_agent(
        connection,
        status.agent,
        online=status.online,
        incarnation=status.incarnation,
        status=encode([status]).decode(),
        seen_at=now.timestamp(),
        attempts=0 if returned else before.attempts,
    )


def _without_old_news(will: Status, before: Status | None) -> Status:
    """A last will was written when the process began, and may tell of old groups, keys, enrolments and journals."""
    heads = [status.audit_head for status in (before, will) if status and status.audit_head]
    head = max(heads, key=lambda mark: mark.number, default=None)
    groups = before.groups if before else None
    version = before.signing_keys_version if before else None
    enrolment = before.enrolment_id if before else None
    return replace(will, groups=groups, signing_keys_version=version, enrolment_id=enrolment, audit_head=head)


def _groups_in(status: str | None) -> tuple[str, ...] | None:
    known = status_in(status)
    return known.groups if known else None
