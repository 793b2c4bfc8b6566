"""Records an agent's status in the ledger: its row, its groups, and the commands that become due."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import sqlalchemy as sa

from broker.contract.codec import encode
from broker.contract.messages import Status
from broker.ledger.agents import update_agent
from broker.ledger.damage import decode_or_set_aside
from broker.ledger.groups import set_groups
from broker.ledger.ids import new_id
from broker.ledger.outbox import requeue
from broker.ledger.records import AgentRecord
from broker.ledger.sequence import follow_store, resend_after_rollback
from broker.ledger.tables import AGENTS

__all__ = [
    "record_status",
    "request_report",
    "without_kept_of_unknown",
]


_MAX_PAST = 4


def without_kept_of_unknown(
    connection: sa.Connection, statuses: Sequence[Status], repeated: Collection[str]
) -> tuple[Status, ...]:
    """Return the statuses without the last ones that the broker keeps of agents that are not known any more."""
    kept = {it.agent for it in statuses if not it.online and it.agent in repeated}
    if not kept:
        return tuple(statuses)
    known = set(connection.scalars(sa.select(AGENTS.c.name).where(AGENTS.c.name.in_(kept))))
    return tuple(it for it in statuses if it.online or it.agent not in kept - known)


def record_status(
    connection: sa.Connection,
    row: AgentRecord,
    before: Status | None,
    status: Status,
    now: datetime,
    *,
    is_repeat: bool,
) -> bool:
    """Within a transaction that has locked the agent's row, store a status that is newer than `before`, the one in it.

    Commands that the agent had not accepted become due if it restarted or came back online, and commands that it had
    accepted if its store went back in time. Groups in the status replace the ledger's if they differ from those in the
    status before. `is_repeat`: the broker may have delivered it before, so it does not show that the agent is alive
    now. Return whether two clients use the agent's name.
    """
    if before is None:
        decode_or_set_aside(connection, row, "status", Status, now)
    if not status.online and status.updated_at is None:  # a last will may be out of date: it is made before it connects
        status = _without_outdated(status, before)
    text = encode([status]).decode()
    if is_repeat and text == row.status:
        return False
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
        status=text,
        seen_at=_spoke_at(status, now) if is_repeat else now.timestamp(),
        forgotten_at=None,
        request=None if status.answers == row.request else row.request,
        attempts=0 if returned else row.attempts,
    )
    return _follow_incarnations(connection, row, status, now, is_repeat=is_repeat)


def request_report(connection: sa.Connection, row: AgentRecord) -> str:
    """Return the id of the request that a status must answer to be believed; make one if there is none."""
    request = row.request or new_id()
    update_agent(connection, row.name, request=request)
    return request


def _spoke_at(status: Status, now: datetime) -> float:
    """Return when the agent made a status that was delivered later, in seconds since 1970; `now` if it does not say."""
    if status.updated_at is None:
        return now.timestamp()
    return min(now, status.updated_at + timedelta(seconds=status.clock_behind_s or 0)).timestamp()


def _follow_incarnations(
    connection: sa.Connection, row: AgentRecord, status: Status, now: datetime, *, is_repeat: bool
) -> bool:
    """Whether an earlier incarnation came back after a later one: another client uses the agent's name.

    Not every broker reports that a client takes over the session of another (0x8E, MQTT 5 section 3.14.2.1).
    """
    if is_repeat or not status.online or row.incarnation in (None, status.incarnation):
        return False
    past = decode_or_set_aside(connection, row, "past_incarnations", list[str], now) or []
    came_back = status.incarnation in past
    past = [row.incarnation, *(it for it in past if it not in (row.incarnation, status.incarnation))][:_MAX_PAST]
    update_agent(connection, row.name, past_incarnations=msgspec.json.encode(past).decode())
    if came_back:
        update_agent(connection, row.name, name_conflict_at=now.timestamp())
    return came_back


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
