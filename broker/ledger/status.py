"""Records an agent's status in the ledger: its row, its groups, and the commands that become due."""

from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.messages import Status
from broker.ledger.agents import get_or_create, status_in, update_agent
from broker.ledger.groups import set_groups
from broker.ledger.outbox import requeue
from broker.ledger.sequence import follow_store, resend_after_rollback

__all__ = [
    "record_status",
]


def record_status(connection: sa.Connection, status: Status, now: datetime) -> None:
    """Within a transaction, store an agent's status and act on it.

    Commands that the agent had not accepted become due if it restarted or came back online, and commands that it had
    accepted if its store went back in time. Groups in the status replace the ledger's if they differ from those in the
    status before.
    """
    row = get_or_create(connection, status.agent, now)
    before = status_in(row.status)
    if not status.online:  # a last will was written when the process started, and may be out of date
        status = _without_outdated(status, before)
    returned = status.online and not (row.online and row.incarnation == status.incarnation)
    if not follow_store(connection, row, status, now) and (returned or _went_back(before, status)):
        resend_after_rollback(connection, row, status, now)
    if status.groups is not None and status.groups != (before.groups if before else None):
        set_groups(connection, status.agent, status.groups)
    if returned:
        requeue(connection, [status.agent])
    update_agent(
        connection,
        status.agent,
        online=status.online,
        incarnation=status.incarnation,
        store_generation=status.store_generation,
        status=encode([status]).decode(),
        seen_at=now.timestamp(),
        attempts=0 if returned else row.attempts,
    )


def _went_back(before: Status | None, status: Status) -> bool:
    """Whether an online agent reports an earlier number than before: a resumed snapshot keeps even its incarnation."""
    if before is None or not status.online:
        return False
    return (status.epoch or 0, status.last_sequence) < (before.epoch or 0, before.last_sequence)


def _without_outdated(will: Status, before: Status | None) -> Status:
    """Return a last will with the groups, keys, enrolment and journal head of the status before it."""
    heads = [status.audit_head for status in (before, will) if status and status.audit_head]
    head = max(heads, key=lambda mark: mark.number, default=None)
    groups = before.groups if before else None
    version = before.signing_keys_version if before else None
    enrolment = before.enrolment_id if before else None
    return replace(will, groups=groups, signing_keys_version=version, enrolment_id=enrolment, audit_head=head)
